"""The address of a page follows what is chosen in it, and single keys act."""

from __future__ import annotations

import anywidget
import traitlets

KEYS = "12345"

# A page of Voila marks its body; a notebook in JupyterLab has an address of its own, which stays. There the keys count inside
# the view alone, and JupyterLab's own shortcuts are kept from them.
SCRIPT = """
function render({ model, el }) {
  const page = document.body.dataset.voila !== undefined;
  const put = () => { if (page) history.replaceState(null, '', '?' + model.get('address')); };
  model.on('change:address', put);
  put();
  const press = event => {
    if (event.ctrlKey || event.metaKey || event.altKey || !model.get('single_keys').includes(event.key)) return;
    if (event.target.closest('input, textarea, [contenteditable=true]')) return;
    event.preventDefault();
    model.send({ key: event.key });
  };
  const keep = event => { event.target.dataset.lmSuppressShortcuts = 'true'; };
  let root, waiting;
  const attach = () => {  // this widget is made before it stands in its view
    root = page ? document : el.closest('.wb-view');
    if (!root) { waiting = setTimeout(attach, 100); return; }
    if (!page) root.addEventListener('focusin', keep);
    root.addEventListener('keydown', press);
  };
  attach();
  return () => {
    clearTimeout(waiting);
    if (root) { root.removeEventListener('keydown', press); root.removeEventListener('focusin', keep); }
  };
}
export default { render };
"""


class Address(anywidget.AnyWidget):
    """Puts `address` into the page's address, and tells of the keys that are pressed."""

    _esm = SCRIPT
    address = traitlets.Unicode("").tag(sync=True)
    single_keys = traitlets.Unicode(KEYS).tag(sync=True)
