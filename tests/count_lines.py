"""Lines of code of the package, by its places; ``make lint`` prints them.

Docstrings, comments and blank lines do not count.
"""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "wsolkit"

#: Lines of code that the package may have: lowered when it becomes thinner, raised only for a new data set, backbone or
#: method (last: I2C and ResNet18). The aim is 6,000.
LIMIT = 8183


def lines_of_code(path: Path) -> int:
    """Lines of one file that are neither blank nor comment nor docstring."""
    text = path.read_text()
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            documented.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(bool(line.strip()) and line.lstrip()[0] != "#" and number not in documented for number, line in lines)


def by_place() -> Counter[str]:
    """Lines of code by file or folder at the top level of the package."""
    counts: Counter[str] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        counts[path.relative_to(PACKAGE).parts[0]] += lines_of_code(path)
    return counts


if __name__ == "__main__":
    counts = by_place()
    for place, count in counts.items():
        print(f"{count:6,} {place}")
    print(f"{counts.total():6,} lines of code in wsolkit/ (limit {LIMIT:,})")
