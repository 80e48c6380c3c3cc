"""The one HTML page of a report: skeleton and style, with ``$names`` to fill in."""

from string import Template

__all__ = ["PAGE"]

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root {
  --paper: #fbfaf8; --card: #ffffff; --ink: #23272e; --soft: #646b76; --line: #e3e1dc;
  --pale: #d9dfe8; --accent: #1f5fa8;
  --series-0: #1f5fa8; --series-1: #c2571a; --series-2: #2c8558; --series-3: #8a4fa3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181d; --card: #1d2127; --ink: #e4e6ea; --soft: #9aa2ae; --line: #333943;
    --pale: #3a4350; --accent: #7fb2ef;
    --series-0: #6fa8ec; --series-1: #e8955a; --series-2: #62c08e; --series-3: #c08ad8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem; }
p.lead { color: var(--soft); margin: 0 0 1.8rem; }
p.caption { color: var(--soft); font-size: .875rem; margin: .3rem 0 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.2rem, 1fr)); gap: .8rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .9rem 1rem; }
.card .name { color: var(--soft); font-size: .8125rem; }
.card .figure { font-size: 1.6rem; font-weight: 650; line-height: 1.3; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums; }
.card .note { color: var(--soft); font-size: .8125rem; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .35rem 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem .5rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .8125rem; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem; }
figure svg { display: block; width: 100%; height: auto; }
ul.notes { padding-left: 1.2rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .35rem 1.4rem;
  font-size: .9375rem; margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .9rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
dd.code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .85rem; }
footer { color: var(--soft); font-size: .8125rem; margin-top: 2.6rem; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: .1rem; }
  dd { margin-bottom: .5rem; } main { padding-top: 1.6rem; } }
@media print { body { background: #fff; } .card, figure, .wide { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
</header>
<div class="cards">
$cards
</div>
$body
<footer>$footer</footer>
</main>
</body>
</html>
""")
