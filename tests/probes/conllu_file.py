"""A small CoNLL-U file of the project's own, with everything the format can do to a word."""

from __future__ import annotations

from pathlib import Path

HEADER = "# newdoc id = {doc}\n"
SENTENCES = (
    (
        "We don't sleep here.",
        """1\tWe\twe\tPRON\t_\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
4\tsleep\tsleep\tVERB\t_\t_\t0\troot\t_\t_
5\there\there\tADV\t_\t_\t4\tadvmod\t_\tSpaceAfter=No
6\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_""",
    ),
    (
        "Old dogs know the  long way home",
        """1\tOld\told\tADJ\t_\t_\t2\tamod\t_\t_
2\tdogs\tdog\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tknow\tknow\tVERB\t_\t_\t0\troot\t_\t_
3.1\tknow\tknow\tVERB\t_\t_\t_\t_\t_\t_
4\tthe\tthe\tDET\t_\t_\t6\tdet\t_\t_
5\tlong\tlong\tADJ\t_\t_\t6\tamod\t_\t_
6\tway\tway\tNOUN\t_\t_\t3\tobj\t_\t_
7\thome\thome\tADV\t_\t_\t3\tadvmod\t_\t_""",
    ),
    (
        "El perro va al río",
        """1\tEl\tel\tDET\t_\t_\t2\tdet\t_\t_
2\tperro\tperro\tNOUN\t_\t_\t3\tnsubj\t_\t_
3\tva\tir\tVERB\t_\t_\t0\troot\t_\t_
4-5\tal\t_\t_\t_\t_\t_\t_\t_\t_
4\ta\ta\tADP\t_\t_\t6\tcase\t_\t_
5\tel\tel\tDET\t_\t_\t6\tdet\t_\t_
6\trío\trío\tNOUN\t_\t_\t3\tobl\t_\t_""",
    ),
)


def write(path: Path, *, comments: bool = True) -> Path:
    """The file; three documents with a sentence each."""
    blocks = []
    for i, (text, words) in enumerate(SENTENCES):
        head = f"# newdoc id = d{i}\n# sent_id = s{i}\n# text = {text}\n" if comments else ""
        blocks.append(f"{head}{words}\n")
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path
