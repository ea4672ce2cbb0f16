"""The page on which people log in: a form, without a script and without a request to anybody else."""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

STYLE = """
:root { color-scheme: light dark; --text: #18181b; --quiet: #52525b; --back: #ffffff; --line: #71717a; --bad: #b91c1c;
        --act: #2563eb; }
@media (prefers-color-scheme: dark) {
  :root { --text: #f4f4f5; --quiet: #b4b4bb; --back: #18181b; --line: #a1a1aa; --bad: #fca5a5; }
}
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--text); background: var(--back); margin: 0; }
main { max-width: 24rem; margin: 12vh auto 0; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; font-weight: 650; margin: 0 0 .25rem; }
p { color: var(--quiet); margin: 0 0 1.25rem; }
p.other { margin: 1.25rem 0 0; text-align: center; }
a { color: inherit; }
p.bad { color: var(--bad); font-weight: 600; }
label { display: block; font-weight: 600; margin-bottom: .25rem; }
input, button { font: inherit; width: 100%; padding: .6rem .75rem; border-radius: 6px; }
input { color: inherit; background: transparent; border: 1px solid var(--line); margin-bottom: 1rem; }
button { color: #fff; background: var(--act); border: 0; font-weight: 600; cursor: pointer; }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
"""


def login_html(wrong: str = "", issuer: str | None = None) -> str:
    """The page.

    Args:
        wrong: what was wrong with the last attempt.
        issuer: where people may log in instead.
    """
    other = f'<p class="other"><a href="/login/issuer">Log in at {escape(urlsplit(issuer).netloc)}</a></p>' if issuer else ""
    said = f'<p class="bad" role="alert">{escape(wrong[:1].upper() + wrong[1:])}.</p>' if wrong else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Log in</h1>
<p>Questions are answered for people whom this service knows.</p>
{said}<form method="post" action="/login">
<label for="name">Name</label>
<input id="name" name="name" autocomplete="username" required maxlength="200" autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="500">
<button type="submit">Log in</button>
</form>
{other}
</main>
</body>
</html>
"""
