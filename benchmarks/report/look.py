"""The page's style sheet: a phone's width up, light and dark, and paper."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1d1f; --soft: #55595f; --line: #d4d7db; --band: #f3f4f6;
  --link: #00568a; --mark: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e9eaec; --soft: #a9aeb5; --line: #3b4047;
  --band: #1f2226; --link: #7cc4f2; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; line-height: 1.35; margin: 1.5rem 0 .5rem; }
p, li, dd { max-width: 46rem; }
a { color: var(--link); }
code { font: .875em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.verdict { border-left: .3rem solid var(--mark); padding: .1rem 0 .1rem 1rem; margin: 1rem 0; }
.verdict p { font-size: 1.1rem; margin: .4rem 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0; }
nav a { display: inline-block; padding: .3rem 0; }
dl { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: .3rem 1rem; margin: .75rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; border: 1px solid var(--line); border-radius: .3rem; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap; overflow-wrap: normal; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
thead th { background: var(--band); font-weight: 600; vertical-align: bottom; }
thead th:first-child { background: var(--band); }
tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 400; max-width: 11rem; overflow: hidden; text-overflow: ellipsis; }
tr.ours th, tr.ours td { font-weight: 700; }
.text { text-align: left; }
.n { white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 2rem 3rem;
  align-items: start; }
figure { margin: 0; min-width: 0; max-width: 33rem; }
figure h3 { margin: 0 0 .5rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .9rem; color: var(--soft); margin-top: .5rem; }
figcaption p { margin: .25rem 0; }
.narrow { display: none; }
.absent, .narrow { color: var(--soft); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .875rem; }
@media (max-width: 60rem) { .narrow { display: block; } }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #333; --line: #999; --band: #eee; --link: #000; }
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .files, .narrow { display: none; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: 7pt; }
  th, td { padding: .15rem .25rem; white-space: normal; }
  th:first-child { position: static; }
  p, tr, figure, dl > *, .scroll, .verdict { break-inside: avoid; }
  thead { display: table-header-group; }
  .plots { display: block; }
  figure { display: inline-block; width: 48%; margin: 0 1% 6mm 0; vertical-align: top; }
  figure h3, figcaption { font-size: 9pt; }
  section > p { break-after: avoid; }
}
"""
