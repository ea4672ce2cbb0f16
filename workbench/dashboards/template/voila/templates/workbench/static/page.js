// The system's light or dark where the address names no theme; and a word when what computes the page has ended.
(() => {
  if (!new URLSearchParams(location.search).has('theme')) {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const follow = () => { document.body.dataset.jpThemeLight = String(!dark.matches); };
    dark.addEventListener('change', follow);
    new MutationObserver(() => {
      if (document.body.dataset.jpThemeLight !== String(!dark.matches)) follow();
    }).observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light'] });
    follow();
  }
  const found = document.getElementById('jupyter-config-data');
  if (!found) return;
  const config = JSON.parse(found.textContent);
  const look = async () => {
    let there = false;
    try {
      there = (await fetch(`${config.baseUrl}api/kernels/${config.kernelId}`)).ok;
    } catch { /* the server is gone */ }
    if (there) return;
    clearInterval(timer);
    const said = document.createElement('div');
    said.className = 'wb-gone';
    said.setAttribute('role', 'alert');
    said.innerHTML = 'What computes this page has ended, so nothing here answers any more. <a href="">Load it again</a>';
    document.body.prepend(said);
  };
  const timer = setInterval(look, 3000);
})();
