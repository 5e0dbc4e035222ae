"""Style sheet of the report page; follows the reader's light or dark setting."""

STYLE = """
:root { --bg:#f6f7f9; --card:#fff; --ink:#1a1f27; --soft:#5d6675; --rule:#e3e7ed; --c1:#8793a6;
  --c2:#2f6fed; --c3:#d98a1f; --warn:#b3261e; }
@media (prefers-color-scheme: dark) { :root { --bg:#12151a; --card:#1b2028; --ink:#e8ebf0;
  --soft:#98a2b3; --rule:#2c333e; --c1:#8c97aa; --c2:#6d9cff; --c3:#eeaa4c; --warn:#ff8a80; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--bg); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1060px; margin:0 auto; padding:36px 20px 56px; display:grid; gap:18px;
  grid-template-columns:repeat(2,minmax(0,1fr)); }
header,.tiles,.wide { grid-column:1/-1; }
h1 { margin:0; font-size:28px; letter-spacing:-.02em; }
h2 { margin:0 0 12px; font-size:15px; font-weight:600; }
h3 { margin:14px 0 6px; font-size:13px; font-weight:500; color:var(--soft); }
header p { margin:4px 0 0; color:var(--soft); }
header p.warning { color:var(--warn); font-weight:600; }
.tiles { display:grid; gap:12px; grid-template-columns:repeat(auto-fit,minmax(165px,1fr)); }
.tile,.card { background:var(--card); border:1px solid var(--rule); border-radius:12px; }
.tile { padding:14px 16px; }
.tile b { display:block; font-size:26px; letter-spacing:-.02em; font-variant-numeric:tabular-nums; }
.tile span { color:var(--soft); font-size:13px; }
.card { padding:18px 20px; overflow-x:auto; }
table { width:100%; border-collapse:collapse; font-variant-numeric:tabular-nums; }
th,td { padding:7px 10px; text-align:right; border-bottom:1px solid var(--rule);
  white-space:nowrap; }
th:first-child,.text th,.text td { text-align:left; }
thead th { color:var(--soft); font-weight:500; font-size:13px; }
tbody th { font-weight:500; }
tfoot td,tfoot th { font-weight:600; border-bottom:0; }
tbody:last-child tr:last-child > * { border-bottom:0; }
.note { margin:10px 0 0; color:var(--soft); font-size:13px; }
.chart { width:100%; height:auto; display:block; }
.grid { stroke:var(--rule); }
.tick { fill:var(--soft); font-size:11px; }
.line { fill:none; stroke-width:1.8; stroke-linejoin:round; }
.line.c1 { stroke:var(--c1); } .line.c2 { stroke:var(--c2); } .line.c3 { stroke:var(--c3); }
.mark { stroke:var(--card); stroke-width:1.5; }
.mark.c1 { fill:var(--c1); } .mark.c2 { fill:var(--c2); } .mark.c3 { fill:var(--c3); }
.legend { display:flex; gap:16px; margin-top:8px; color:var(--soft); font-size:13px; }
.key i { display:inline-block; width:12px; height:3px; border-radius:2px; margin-right:6px;
  vertical-align:middle; }
.c1 { background:var(--c1); } .c2 { background:var(--c2); } .c3 { background:var(--c3); }
.bars { display:grid; grid-template-columns:minmax(64px,max-content) 1fr max-content; gap:8px 12px;
  align-items:center; font-size:13px; }
.bar-label { color:var(--soft); max-width:150px; }
.bar-text { font-variant-numeric:tabular-nums; }
.bar { height:14px; border-radius:4px; }
.badge { display:inline-block; min-width:26px; padding:0 7px; border-radius:9px; text-align:center;
  background:var(--c2); color:#fff; font-size:12px; font-weight:600; }
.badge.float { background:var(--rule); color:var(--soft); }
.meter { width:20%; }
.meter i { display:block; height:6px; border-radius:3px; background:var(--c2); }
dl { display:grid; grid-template-columns:max-content minmax(0,1fr); gap:6px 18px; margin:0; }
dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
code { font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; }
@media (max-width:760px) { main { grid-template-columns:minmax(0,1fr); } }
@media print { body { background:#fff; } .card,.tile { break-inside:avoid; } }
"""
