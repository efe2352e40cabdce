"""The style sheet of a report: a wide page, a phone, a dark screen, paper."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de; --tint: #f6f8fa; --mark: #fff3c4;
  --link: #0a56b0; --holds: #00604a; --fails: #a33a00; --undecided: #6b4e00; --out: #3d4a9a;
  --reported: #444c56; }
@media screen and (prefers-color-scheme: dark) { :root {
  --ink: #e6edf3; --paper: #0d1117; --soft: #9aa4af; --line: #30363d; --tint: #161b22; --mark: #2f2a14;
  --link: #79b8ff; --holds: #4fd1a5; --fails: #ff9e64; --undecided: #e3c05b; --out: #a5b4fc;
  --reported: #c0c8d0; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 78rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; break-after: avoid; }
h1 { margin-bottom: .2rem; }
h2 { margin: 3rem 0 .2rem; padding-top: .6rem; border-top: 2px solid var(--ink); }
h3 { margin: 2.2rem 0 .2rem; }
p, figcaption { max-width: 52rem; margin: .5rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
.facts, figcaption, .small { color: var(--soft); font-size: .875rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0;
  border-bottom: 1px solid var(--line); }
thead th { font-size: .875rem; color: var(--soft); }
.word { font-weight: 700; white-space: nowrap; }
.holds { color: var(--holds); } .fails { color: var(--fails); } .undecided { color: var(--undecided); }
.out { color: var(--out); } .reported { color: var(--reported); }
.error { color: var(--fails); font-weight: 700; }
td.number { font-variant-numeric: tabular-nums; }
.claims tr:not(.says) > * { border-bottom: 0; } .claims tbody { border-bottom: 1px solid var(--line); }
.claims tr.says > td { border: 0; padding-bottom: 0; } .claims th[scope=rowgroup] { border: 0; }
tr:target, section:target > h3 { background: var(--mark); }
figure { margin: 1rem 0; break-inside: avoid; }
.panels { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.panels.even { grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); max-width: 60rem; }
.panels img { width: 100%; max-width: 30rem; height: auto; background: #fff; border: 1px solid var(--line);
  break-inside: avoid; }
details { background: var(--tint); padding: .5rem 1rem; margin: .5rem 0; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr));
  gap: .1rem 1.5rem; margin: .5rem 0; font-size: .875rem; }
dl div { display: flex; gap: .5rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
ul.inline { list-style: none; padding: 0; margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
@media screen and (max-width: 56rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  table, caption, tbody, tr, td, th { display: block; } td, th { border: 0; padding: .1rem 0; }
  .overview tr, .claims tbody { padding: .75rem 0; border-bottom: 1px solid var(--line); }
  .claims tr:not(.says) { padding-top: .4rem; }
  td[data-name]::before { content: attr(data-name) ": "; color: var(--soft); } }
@media screen and (max-width: 30rem) { body { padding: .75rem; } ul.inline { display: block; }
  ul.inline li { padding: .25rem 0; } }
@media print {
  @page { margin: 14mm; }
  :root { color-scheme: light; font-size: 9pt; }
  body { max-width: none; padding: 0; }
  a { color: var(--ink); }
  h2, h3 { margin-top: 1.2rem; }
  section + section > h2 { break-before: page; }
  .decides { break-after: avoid; }
  tr, tbody, details { break-inside: avoid; }
  dl { grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
  .panels, .panels.even { grid-template-columns: 1fr 1fr; max-width: none; } .panels img { max-width: none; }
  .screen { display: none; } }
"""
