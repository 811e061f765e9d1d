"""The page's style sheet: a phone's width up to a wide screen's, light and dark, and paper."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1d1f; --soft: #55595f; --line: #d4d7db; --band: #f3f4f6;
  --link: #00568a; --good: #00795a; --bad: #c24a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e9eaec; --soft: #a9aeb5; --line: #3b4047;
  --band: #1f2226; --link: #7cc4f2; --good: #35c29a; --bad: #f0894a; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem clamp(1rem, 3vw, 3rem); max-width: 116rem; background: var(--paper);
  color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1rem; font-weight: 400; line-height: 1.35; margin: .5rem 0 0; color: var(--soft); }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; line-height: 1.35; margin: 1.5rem 0 .5rem; }
p, li, dd { max-width: 46rem; }
a { color: var(--link); }
code { font: .875em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.verdict { border-left: .4rem solid var(--soft); padding: .1rem 0 .1rem 1rem; margin: .75rem 0 1.25rem; }
.verdict.pays { border-color: var(--good); }
.verdict.loses { border-color: var(--bad); }
.verdict p { font-size: clamp(1.4rem, 1.05rem + 1.4vw, 2.2rem); font-weight: 600; line-height: 1.25; margin: 0;
  max-width: 40em; text-wrap: pretty; overflow-wrap: break-word; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem 2rem;
  list-style: none; padding: 0; margin: 1.25rem 0; }
.cards li { border-top: 2px solid var(--line); padding-top: .5rem; font-size: .9375rem; }
.cards strong { display: block; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0; }
nav a { display: inline-block; padding: .3rem 0; }
.beside, .tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 0 3rem; }
.tables > div { min-width: 0; }
dl { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: .3rem 1rem; margin: .75rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; border: 1px solid var(--line); border-radius: .3rem; }
.scroll.small { max-width: 56rem; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap; overflow-wrap: normal; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
thead th { background: var(--band); font-weight: 600; vertical-align: bottom; }
thead th:first-child { background: var(--band); }
tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 400; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; max-width: 11rem; }
tr.ours th, tr.ours td { font-weight: 700; }
.text { text-align: left; }
.n { white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 2rem 2.5rem;
  align-items: start; }
figure { margin: 0; min-width: 0; max-width: 36rem; }
figure h3 { margin: 0 0 .5rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .9rem; color: var(--soft); margin-top: .5rem; }
figcaption p { margin: .25rem 0; }
.narrow { display: none; }
.absent, .narrow { color: var(--soft); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .875rem; }
@media (max-width: 68rem) { .narrow { display: block; } }
@media (min-width: 50rem) { tbody th { min-width: min-content; max-width: 24rem; }
  .wide dl { grid-template-columns: repeat(2, minmax(6rem, 9rem) 1fr); }
  .plots.lone { display: block; }
  .lone figure { display: grid; grid-template-columns: min(33rem, 58%) minmax(0, 1fr); gap: 0 2.5rem; }
  .lone figure { max-width: none; }
  .lone h3 { grid-column: 1 / -1; }
  .lone figcaption { align-self: center; max-width: 40rem; } }
@media (min-width: 75rem) { .plots { grid-template-columns: repeat(auto-fill, minmax(27rem, 1fr)); } }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #333; --line: #999; --band: #eee; --link: #000; }
  @page { margin: 14mm; }
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; }
  h1 { margin: 0; }
  h2 { margin-top: 1.5rem; }
  nav, .files, .narrow { display: none; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: 7pt; }
  th, td { padding: .15rem .25rem; white-space: normal; }
  th:first-child { position: static; min-width: 0; overflow-wrap: normal; }
  .tables td { white-space: nowrap; }
  p, tr, figure, dl > *, .tables > div, .scroll, .verdict { break-inside: avoid; }
  thead { display: table-header-group; }
  .verdict p { font-size: 15pt; }
  .cards { grid-template-columns: 1fr 1fr; }
  .cards li { break-inside: avoid; }
  .beside, .tables { grid-template-columns: 1fr 1fr; gap: 0 6mm; }
  .beside dl { grid-template-columns: 6rem 1fr; }
  .plots, .plots.lone { display: block; }
  figure { display: inline-block; width: 48%; margin: 0 1% 6mm 0; vertical-align: top; }
  figure h3, figcaption { font-size: 9pt; }
  section > p { break-after: avoid; }
}
"""
