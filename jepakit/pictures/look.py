"""How a report looks: quiet, legible on a phone, at night and on paper."""

LOOK = """
:root {
  --ground: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #d9dee3; --panel: #f6f7f9; --accent: #0b62a8;
  --good: #0a6b4f; --watch: #8a5a00; --bad: #b3261e; --bar: #0072b2; --other: #8c959f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --ink: #e4e7eb; --faint: #a3adb8; --line: #30363d; --panel: #1c2127; --accent: #7ab8f0;
    --good: #58c79f; --watch: #e3b341; --bad: #ff8a80; --bar: #56b4e9; --other: #7d8590;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, ul, ol { margin: 0 0 .9rem; max-width: 44rem; }
a { color: var(--accent); text-underline-offset: .15em; }
code, pre {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875em;
}
pre {
  margin: 0 0 .9rem; padding: .75rem .9rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere;
}
.under { color: var(--faint); margin-bottom: 1.25rem; }
.verdict {
  border: 1px solid var(--line); border-left: .35rem solid var(--faint); border-radius: 6px; background: var(--panel);
  padding: .9rem 1.1rem; margin: 0 0 1.75rem;
}
.verdict p { margin: .3rem 0 0; overflow-wrap: anywhere; max-width: none; }
.verdict .word { margin: 0; font-weight: 650; font-size: 1.1rem; }
.good { border-left-color: var(--good); } .good .word { color: var(--good); }
.watch { border-left-color: var(--watch); } .watch .word { color: var(--watch); }
.bad { border-left-color: var(--bad); } .bad .word { color: var(--bad); }
nav { border-block: 1px solid var(--line); padding: 1rem 0; margin-bottom: 1rem; }
nav h2 { font-size: .95rem; margin-bottom: .35rem; color: var(--faint); font-weight: 600; }
nav ol { margin: 0; padding-left: 1.5rem; columns: 2; column-gap: 2rem; max-width: none; }
nav li { padding: .1rem 0; }
section { padding: 1.75rem 0 1rem; border-bottom: 1px solid var(--line); }
section:last-child { border-bottom: 0; }
figure { margin: 1.25rem 0 1.75rem; }
figure img {
  display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px;
  padding: .4rem;
}
figcaption { color: var(--faint); font-size: .925rem; margin-top: .5rem; max-width: 44rem; }
dl.facts { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.25rem; margin: 0 0 1rem; }
dl.facts dt { color: var(--faint); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
dl.commands dt { color: var(--faint); margin-top: .6rem; }
dl.commands dd { margin: .15rem 0 0; }
dl.commands code {
  display: block; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .4rem .7rem;
  overflow-wrap: anywhere;
}
.scroll { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .925rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } tbody th { font-weight: 400; } thead th { color: var(--faint); }
table.scores tbody tr:first-child th, table.scores tbody tr:first-child td { font-weight: 650; }
table.settings { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .8rem; }
table.settings td { overflow-wrap: anywhere; min-width: 6rem; } table.settings tbody th { white-space: nowrap; }
svg.interval { width: 11rem; height: 1rem; display: block; margin-top: .25rem; }
svg.interval line { stroke: var(--other); stroke-width: 2; } svg.interval circle { fill: var(--other); }
svg.interval .rail { stroke: var(--line); stroke-width: 1; }
tr:first-child svg.interval .span { stroke: var(--bar); } tr:first-child svg.interval circle { fill: var(--bar); }
details { margin: 0 0 1rem; } summary { cursor: pointer; color: var(--accent); padding: .2rem 0; }
details > :not(summary) { margin-top: .5rem; }
.warn { color: var(--watch); }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.4rem; }
  nav ol { columns: 1; }
  dl.facts { grid-template-columns: 1fr; gap: 0; } dl.facts dd { margin-bottom: .6rem; }
}
@media print {
  :root {
    --ground: #fff; --ink: #000; --faint: #444; --line: #ccc; --panel: #fff; --accent: #000; --good: #000;
    --watch: #000; --bad: #000; --bar: #000; --other: #777;
  }
  @page { margin: 16mm 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { break-after: avoid; }
  section { border-bottom: 0; padding-top: 1rem; }
  h2, h3, caption, summary { break-after: avoid; }
  figure, tr, table.scores, .verdict, dl.commands dt { break-inside: avoid; }
  table.settings { font-size: 6.5pt; } table.settings th, table.settings td { padding: .06rem .6rem .06rem 0; }
  dl.commands dt { break-after: avoid; }
  figure img { max-height: 180mm; width: auto; max-width: 100%; border: 0; padding: 0; margin: 0 auto; }
  .scroll { overflow: visible; }
  a { text-decoration: none; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  summary { list-style: none; color: var(--faint); }
}
"""
