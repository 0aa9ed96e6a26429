"""The console's style sheet: that of reports, and what only the console has."""

from __future__ import annotations

from safegen.pages.style import STYLE

__all__ = ["SHEET"]

SHEET = (
    STYLE
    + """
.skip{position:absolute;left:-99rem}.skip:focus{left:.5rem;top:.5rem;background:var(--bg);
padding:.5rem;z-index:9}
.top{border-bottom:1px solid var(--line);background:var(--card)}
.top>div{max-width:70rem;margin:0 auto;padding:.35rem 1rem;display:flex;align-items:center;
flex-wrap:wrap;gap:.25rem .9rem}
.top nav{flex:1 1 auto;min-width:0}.top nav ul{margin:.2rem 0;gap:.15rem;flex-wrap:wrap}
.top nav a{border:0;border-radius:6px;padding:.3rem .55rem}
.top nav a:hover{background:var(--grid)}
.top nav a[aria-current]{background:var(--ink);color:var(--bg)}
.home{font-weight:750;text-decoration:none;color:var(--ink);letter-spacing:-.02em}
.who{font-size:.86rem;color:var(--soft);display:flex;gap:.5rem;align-items:center}
a.who{color:var(--more)}
.full{max-width:none}
.foot{max-width:70rem;margin:0 auto;padding:.75rem 1rem 2rem}
button,.button{font:inherit;font-size:.9rem;padding:.35rem .8rem;border-radius:7px;cursor:pointer;
border:1px solid var(--line);background:var(--bg);color:var(--ink);text-decoration:none;
display:inline-block}
button:hover,.button:hover{background:var(--grid)}
button.main{background:var(--ink);color:var(--bg);border-color:var(--ink)}
input,select,textarea{font:inherit;font-size:.92rem;color:var(--ink);background:var(--bg);
border:1px solid var(--soft);border-radius:7px;padding:.35rem .5rem;max-width:100%}
button:focus-visible,input:focus-visible,select:focus-visible,textarea:focus-visible,
.button:focus-visible{outline:3px solid var(--more);outline-offset:1px}
.asks{display:flex;flex-wrap:wrap;gap:.5rem .8rem;align-items:end;margin:.75rem 0}
.asks label{display:grid;grid-template-columns:minmax(0,1fr);max-width:100%;gap:.1rem;
font-size:.84rem;color:var(--soft)}
.asks input[type=search]{width:min(20rem,80vw)}
.pager{display:flex;gap:.4rem 1.1rem;flex-wrap:wrap;color:var(--soft);font-size:.9rem}
.list{width:100%}.list td,.list th{padding:.4rem .8rem .4rem 0}
.list th[scope=row]{font-weight:600;overflow-wrap:anywhere}
.list th .note{display:block;font-weight:400}
.list small{display:block;color:var(--soft);font-weight:400;font-size:.82rem}
.list td.n{text-align:right;white-space:nowrap}.list time{white-space:nowrap}
a.tile{color:inherit;text-decoration:none;display:block}a.tile:hover{border-color:var(--soft)}
.tile.block b{color:var(--block)}.tile.warn b{color:var(--warn)}
.tag{display:inline-block;font-size:.78rem;padding:.02rem .45rem;border-radius:99px;
border:1px solid var(--line);color:var(--soft);white-space:nowrap}
.tag.block{background:var(--blockbg);color:var(--block);border-color:var(--block)}
.tag.warn{background:var(--warnbg);color:var(--warn);border-color:var(--warn)}
.tag.pass{background:var(--passbg);color:var(--pass);border-color:var(--pass)}
.share{width:100%;height:1.4rem;border-radius:6px;border:1px solid var(--line)}
.share .s{fill:var(--made)}.share .r{fill:var(--real)}.share .u{fill:var(--line)}
.days{display:flex;justify-content:space-between;color:var(--soft);font-size:.84rem}
.bars .ok{fill:var(--made)}.bars .no{fill:var(--block)}
.swatch{width:.8rem;height:.8rem;border-radius:3px;display:inline-block;
border:1px solid var(--line)}
.swatch.s{background:var(--made)}.swatch.r{background:var(--real)}.swatch.u{background:var(--line)}
.swatch.no{background:var(--block)}
.editor{position:relative;display:grid;grid-template-columns:auto minmax(0,1fr);
border:1px solid var(--soft);border-radius:8px;overflow:hidden;background:var(--bg);height:34rem;
margin:.5rem 0}
.editor ol{margin:0;padding:.6rem .5rem .6rem .6rem;list-style:none;overflow:hidden;
text-align:right;
color:var(--soft);background:var(--card);border-right:1px solid var(--line);user-select:none;
font:.84rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
min-width:2.6rem}
.editor ol li.bad{background:var(--blockbg);color:var(--block);font-weight:700}
.editor textarea{border:0;border-radius:0;resize:none;width:100%;height:100%;padding:.6rem;
white-space:pre;overflow:auto;tab-size:2;
font:.84rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.editor textarea:focus-visible{outline-offset:-3px}
.found{list-style:none;padding:0;margin:.5rem 0}
.found li{padding:.3rem .6rem;border-left:4px solid var(--block);background:var(--blockbg);
margin:.25rem 0;border-radius:0 6px 6px 0;overflow-wrap:anywhere}
.found li.note{border-color:var(--line);background:var(--card);color:var(--ink)}
.found li.good{border-color:var(--pass);background:var(--passbg)}
.found button{padding:.05rem .4rem;font-size:.8rem;margin-right:.4rem}
.offers{list-style:none;margin:0;padding:0;border:1px solid var(--soft);border-radius:8px;
max-height:15rem;overflow:auto;background:var(--bg)}
.offers:empty{display:none}.offers li{padding:.3rem .6rem;cursor:pointer;font-size:.88rem}
.offers li b{font-family:ui-monospace,monospace}.offers li small{color:var(--soft);display:block}
.offers li[aria-selected=true]{background:var(--grid)}
.actions{display:flex;flex-wrap:wrap;gap:.5rem;margin:.6rem 0;align-items:center}
.patch{white-space:pre;overflow-x:auto}.patch ins,.patch del{text-decoration:none;display:block}
.patch ins{background:var(--passbg);color:var(--pass)}.patch del{background:var(--blockbg);
color:var(--block)}
.rule{border-top:1px solid var(--line);padding-top:.75rem;margin-top:1.5rem}
.rule h3{font-size:1.08rem}.rule table{width:100%;table-layout:fixed}
.rule thead th:nth-child(1){width:19%}.rule thead th:nth-child(2){width:20%}
.rule thead th:nth-child(4){width:15%}.rule td{overflow-wrap:anywhere}
.rule td:last-child{color:var(--soft);font-size:.82rem}.rule h3 .note{font-weight:400}
h2+.rule{border:0;margin-top:0;padding-top:0}
.entry{max-width:26rem;display:grid;gap:.8rem}.entry label{display:grid;gap:.15rem}
@media (max-width:44rem){
.stack thead{position:absolute;left:-99rem}
.stack,.stack caption,.stack tbody,.stack tr,.stack td,.stack th{
display:block;width:auto!important}.stack tr{border-bottom:1px solid var(--line);padding:.45rem 0}
.stack td,.stack th{border:0;padding:.08rem 0!important;text-align:left!important}
.stack td:empty{display:none}
.stack td[data-head]::before{content:attr(data-head) ": ";color:var(--soft);font-size:.84rem}
.editor{height:26rem}}
@media print{.top,.foot,.asks,.actions{display:none}}
"""
)
