"""The style sheet of all pages: a phone, a desk, paper, light and dark; no font from elsewhere."""

__all__ = ["STYLE"]

STYLE = """
:root{--bg:#fff;--card:#f7f8fa;--ink:#1b1f24;--soft:#545d68;--line:#d5dae0;--grid:#e4e8ec;
--made:#0b7285;--made2:#8fcdd6;--real:#1b1f24;--zone:#dcefdc;--edge:#2b6a2f;
--pass:#1a6b2d;--warn:#8a5300;--block:#b3261e;--audit:#545d68;
--passbg:#e6f4e8;--warnbg:#fdf0d9;--blockbg:#fbe6e4;--auditbg:#eceff2;
--less:#b45309;--more:#1d4ed8}
@media (prefers-color-scheme:dark){:root{--bg:#0f1419;--card:#171e25;--ink:#e6eaef;--soft:#a3adb8;
--line:#303a45;--grid:#252e38;--made:#4fb7c7;--made2:#1f5d68;--real:#f2f5f8;--zone:#1d3a24;
--edge:#8fd19a;--pass:#7fd18c;--warn:#f0b866;--block:#ff9a91;--audit:#a3adb8;--passbg:#14301b;
--warnbg:#382a10;--blockbg:#3b1a18;--auditbg:#202932;--less:#f0a35e;--more:#8fb4ff}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:break-word}
main{max-width:70rem;margin:0 auto;padding:1.25rem 1rem 4rem}
h1{font-size:1.5rem;line-height:1.25;margin:.25rem 0 .25rem}
h2{font-size:1.25rem;margin:2.75rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:0;overflow-wrap:anywhere}
h4{font-size:.95rem;margin:0;overflow-wrap:anywhere}h3.gate{margin:1.75rem 0 .25rem}
p{margin:.5rem 0}figure{margin:.5rem 0}.lead,.note{color:var(--soft)}.note{font-size:.86rem}
.lead{max-width:46rem}
code,pre,.id{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
font-size:.85em;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.75rem;
white-space:pre-wrap;margin:.5rem 0}
a{color:var(--more)}
.verdict{border:1px solid;border-left-width:6px;border-radius:10px;padding:.9rem 1rem;margin:1rem 0}
.verdict p{margin:.3rem 0 0;font-size:.92rem}.verdict strong{font-size:1.15rem}
.verdict ul{margin:.5rem 0 0;padding-left:1.2rem;overflow-wrap:anywhere}
.verdict.pass{border-color:var(--pass);background:var(--passbg)}
.verdict.warn{border-color:var(--warn);background:var(--warnbg)}
.verdict.audit{border-color:var(--line);background:var(--card)}
.verdict.block{border-color:var(--block);background:var(--blockbg)}
.mark{display:inline-grid;place-items:center;width:1.35em;height:1.35em;border-radius:50%;
font-weight:700;font-size:.85em;margin-right:.45em;color:var(--bg);flex:none;line-height:1}
.mark.pass{background:var(--pass)}.mark.warn,.mark.waived{background:var(--warn)}
.mark.block{background:var(--block)}.mark.audit{background:var(--audit)}
.outcome{display:inline-flex;align-items:center;font-weight:600;white-space:nowrap}
.outcome.pass{color:var(--pass)}.outcome.warn,.outcome.waived{color:var(--warn)}
.outcome.block{color:var(--block)}.outcome.audit{color:var(--audit)}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem .5rem;margin:.75rem 0;padding:0}
nav a{display:block;padding:.3rem .7rem;border:1px solid var(--line);border-radius:999px;
font-size:.88rem;text-decoration:none;color:var(--ink)}
nav a:hover{background:var(--card)}a:focus-visible,.wide:focus-visible,summary:focus-visible{
outline:3px solid var(--more);outline-offset:2px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(9.5rem,100%),1fr));gap:.6rem;
margin:1rem 0}
.tile{min-width:0;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:.6rem .8rem}
.tile b{display:block;font-size:1.1rem;font-weight:650;overflow-wrap:break-word;line-height:1.3}
.tile span{color:var(--soft);font-size:.84rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20.5rem,100%),1fr));
gap:.8rem;margin:.75rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem .9rem;
min-width:0;break-inside:avoid}
.card>header{display:flex;justify-content:space-between;align-items:baseline;gap:.75rem;
margin-bottom:.35rem}
.card p{overflow-wrap:anywhere}
.card.warn,.card.waived{border-left:4px solid var(--warn)}
.card.block{border-left:4px solid var(--block)}
.facts{margin:.5rem 0;display:grid;gap:.1rem}
.facts>div{display:grid;grid-template-columns:minmax(7rem,12rem) minmax(0,1fr);gap:.75rem;
padding:.3rem 0;border-bottom:1px solid var(--grid)}
.facts dt{color:var(--soft);overflow-wrap:anywhere}.facts dd{margin:0;overflow-wrap:anywhere}
.card .facts>div{grid-template-columns:5.2rem minmax(0,1fr);gap:.5rem;font-size:.88rem;border:0;
padding:.1rem 0}
svg{display:block;max-width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft);font-family:inherit}
svg .mid{text-anchor:middle}svg .end{text-anchor:end}svg .ink{fill:var(--ink)}
.zone{fill:var(--zone)}.edge{stroke:var(--edge);stroke-width:1.5;stroke-dasharray:3 2}
.axis{stroke:var(--line);fill:none}.grid{stroke:var(--grid);fill:none}
.iv{stroke-width:2.5;fill:none}.pt{stroke-width:1.5;stroke:var(--card)}
.iv.pass{stroke:var(--pass)}.iv.warn{stroke:var(--warn)}.iv.block{stroke:var(--block)}
.iv.audit{stroke:var(--audit)}.pt.pass{fill:var(--pass)}.pt.warn{fill:var(--warn)}
.pt.block{fill:var(--block)}.pt.audit{fill:var(--audit)}
.made{fill:var(--made2);stroke:var(--made);stroke-width:.6}.real{fill:none;stroke:var(--real);
stroke-width:1.6}.curve{fill:none;stroke:var(--made);stroke-width:2}
.same{stroke:var(--soft);stroke-dasharray:3 3;fill:none}
.key{display:inline-flex;gap:1.2rem;flex-wrap:wrap;font-size:.88rem;color:var(--soft);
margin:.25rem 0}.key span{display:inline-flex;align-items:center;gap:.4rem}.key svg{flex:none}
table{border-collapse:collapse;margin:.5rem 0;font-size:.9rem}
caption{text-align:left;font-weight:600;padding:.4rem 0;caption-side:top}
th,td{border-bottom:1px solid var(--grid);padding:.3rem .8rem .3rem 0;text-align:left;
vertical-align:top;font-weight:400}
thead th{color:var(--soft);font-size:.84rem;white-space:nowrap}
td.n,.num td{font-variant-numeric:tabular-nums}
.passed small{color:var(--soft)}.passed th{min-width:7.5rem}.passed th b{display:block}
.passed td{overflow-wrap:anywhere}
.levels{width:100%;table-layout:fixed;font-size:.84rem;margin:.2rem 0}
.levels th,.levels td{padding:.12rem .35rem .12rem 0;border:0;vertical-align:middle}
.levels th:first-child{width:24%;overflow-wrap:anywhere}
.levels td:nth-child(3),.levels td:nth-child(4),.levels th:nth-child(3),.levels th:nth-child(4){
width:20%;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.levels tbody th{line-height:1.2}
.forest{width:100%;table-layout:fixed;max-width:46rem}
.forest th,.forest td{vertical-align:middle;padding:.2rem .5rem .2rem 0}
.forest th:first-child{width:32%;overflow-wrap:anywhere;line-height:1.25}
.forest td:last-child,.forest th:last-child{width:11.5rem;text-align:right;
font-variant-numeric:tabular-nums;padding-right:0}
.wide{overflow-x:auto;max-width:100%}
.rows td,.rows th,.rows caption{white-space:nowrap}
.rows td,.rows th{padding-right:1.1rem;font-variant-numeric:tabular-nums}
.withheld{color:var(--soft)}
.pictures{display:flex;flex-wrap:wrap;gap:.6rem;list-style:none;padding:0;margin:.5rem 0}
.pictures img{display:block;width:6rem;height:6rem;object-fit:contain;background:var(--card);
border:1px solid var(--line);border-radius:6px;image-rendering:pixelated}
.tree,.tree ul{list-style:none;margin:0;padding:0}
.tree ul{margin-left:.6rem;padding-left:1rem;border-left:2px solid var(--line)}
.tree li{padding:.35rem 0;position:relative}
.tree ul>li::before{content:"";position:absolute;left:-1rem;top:1.15rem;width:.8rem;
border-top:2px solid var(--line)}
.tree b{overflow-wrap:anywhere}.tree span{display:block;color:var(--soft);font-size:.9rem;
overflow-wrap:anywhere}.tree .doubt{color:var(--warn)}.tree .alarm{color:var(--block);
font-weight:600}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--soft);font-size:.88rem}
.heat .cell{stroke:var(--bg);stroke-width:1}.heat text{font-size:10px}
.heat .on{fill:var(--ink);font-weight:700;text-anchor:middle}
footer{margin-top:3rem;color:var(--soft);font-size:.86rem;border-top:1px solid var(--line);
padding-top:.75rem}
@media (max-width:30rem){main{padding:1rem .8rem 3rem}h1{font-size:1.3rem}
.facts>div{grid-template-columns:minmax(0,1fr);gap:0}.facts dt{font-size:.84rem}
.forest small{display:block}.forest th:first-child{width:34%}
.forest td:last-child,.forest th:last-child{width:5.4rem}}
@media print{:root{--bg:#fff;--card:#fff;--ink:#000;--soft:#333;--line:#bbb;--grid:#ddd;
--made:#0b7285;--made2:#8fcdd6;--real:#000;--zone:#dcefdc;--edge:#2b6a2f;--pass:#1a6b2d;
--warn:#8a5300;--block:#b3261e;--audit:#444;--passbg:#fff;--warnbg:#fff;--blockbg:#fff;
--auditbg:#fff;--less:#b45309;--more:#1d4ed8}
body{font-size:10.5pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
nav{display:none}main{max-width:none;padding:0}.card,.tile,tr,li,figure{break-inside:avoid}
h2,h3{break-after:avoid}.wide{overflow:hidden}.cards{grid-template-columns:1fr 1fr}
.rows td,.rows th{white-space:normal;overflow-wrap:anywhere;padding-right:.5rem}}
"""
