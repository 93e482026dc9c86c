"""Imports point down, outside libraries have one home, nothing grows without limit."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mintoken"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "errors": 0, "models": 0, "reports": 0, "clock": 0, "files": 0, "options": 0, "exchange": 0,
    "charts": 0, "feed": 3, "pages": 4,
    "people": 0, "passwords": 1, "sessions": 3, "members": 3, "shapes": 3, "shown": 3,
    "config": 1, "sse": 1, "splice": 1, "tokens": 1, "prompts": 1, "keys": 1, "rates": 1, "logs": 1,
    "vocabulary": 1, "systemd": 1, "process": 1, "chat_answer": 1, "chat_prompt": 1, "tables": 1,
    "eval_records": 0, "eval_facts": 1, "eval_set": 1, "eval_score": 1, "eval_budget": 1,
    "eval_journal": 1, "eval_judge": 1, "eval_page": 1,
    "patience": 1, "watch": 1, "chat_asked": 1, "patterns": 1, "detect": 1, "conversations": 1,
    "refusals": 1, "arms": 1, "chat_opening": 1, "chat_request": 1, "rules": 1, "pricing": 1,
    "experiment": 1,
    "protocols": 2, "stores": 2, "savings": 2, "usage_shown": 2,
    "statement": 3, "upstream": 3, "relay": 3, "ledger": 3, "accounts": 3, "admin": 3,
    "stopping": 3, "admin_rules": 3, "documents": 3,
    "context": 4, "eval_ask": 4, "savings_shown": 4,
    "middlewares": 5, "routes": 5, "eval_plan": 5,
    "app": 6, "connection": 6, "server": 6, "worker": 6, "parent": 6,
    "checks": 6, "stand_in": 6, "demo": 6,
    "evaluate": 6, "eval_report": 6, "rehearsal": 6,
    "cli": 7, "__main__": 8,
}  # fmt: skip
# The few steps sideways, each onto something that knows nothing of who steps on it.
SIDEWAYS = {
    ("pages", "context"), ("middlewares/auth", "middlewares/members"),
    ("routes/pages_sign_in", "routes/session"), ("routes/pages_welcome", "routes/session"),
    ("routes/pages_keys", "routes/keys"), ("routes/pages_rules", "routes/rules"),
    ("routes/pages_account", "routes/accounts"),
    *(("routes/dashboard", f"routes/pages_{name}") for name in (
        "account", "keys", "overview", "playground", "requests", "rules", "savings", "sign_in",
        "welcome",
    )),
    ("exchange", "models"), ("rules", "patterns"), ("chat_asked", "chat_request"),
    ("chat_opening", "chat_request"), ("chat_prompt", "chat_request"), ("admin_rules", "admin"),
    ("documents", "admin"),
    ("rules", "chat_asked"),
    ("server", "app"), ("server", "connection"), ("worker", "server"), ("parent", "worker"),
    ("parent", "server"), ("demo", "server"), ("demo", "stand_in"),
    ("checks", "connection"),
    ("chat_prompt", "splice"), ("tokens", "vocabulary"),
    ("eval_set", "eval_facts"), ("eval_judge", "eval_facts"), ("eval_report", "evaluate"),
    ("detect", "patterns"), ("conversations", "detect"),
    ("routes/proxy", "routes/answer"), ("routes/proxy", "routes/body"),
    ("routes/proxy", "routes/level"),
    ("stores/sqlite", "stores/admission"), ("stores/sqlite", "stores/sqlite_file"),
    ("stores/sqlite", "stores/sqlite_rows"), ("stores/sqlite", "stores/sqlite_users"),
    ("stores/sqlite_users", "stores/sqlite_file"),
    ("shapes", "admin"), ("shown", "admin"), ("shown", "shapes"),
    ("members", "admin"), ("routes/base", "routes/body"),
    ("stores/sqlite_backup", "stores/sqlite_file"), ("stores/sqlite_backup", "stores/sqlite_rows"),
    ("stores/sqlite", "stores/sqlite_analytics"), ("stores/sqlite", "stores/sqlite_audit"),
    ("stores/sqlite_audit", "stores/sqlite_rows"), ("reports", "models"),
    ("stores/sqlite_audit", "stores/sqlite_samples"),
    ("stores/sqlite_analytics", "stores/sqlite_file"),
    ("stores/sqlite_analytics", "stores/sqlite_pages"),
    ("stores/sqlite", "stores/locks"), ("stores/sqlite", "stores/sqlite_samples"),
}  # fmt: skip
HOMES = {
    "aiosqlite": ("stores",),
    "argon2": ("passwords",),
    "sqlite3": ("stores", "checks"),
    "imagesize": ("chat_prompt",),
    "pygal": ("eval_page", "charts"),
    "aiohttp_jinja2": ("pages",),
    "aiohttp_sse": ("routes",),
    "re2": ("patterns", "rules"),
    "tiktoken": ("tokens", "vocabulary"),
    "tiktoken_ext": ("vocabulary",),
    "aiohttp_sse_client": ("demo", "cli"),
    "typer": ("cli",),
    "uvloop": ("worker",),
}
# May only shrink.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
            if node.module == "mintoken":
                names += [f"mintoken.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here, name_here = module_of(path), str(path.relative_to(PACKAGE).with_suffix(""))
    if here == "__init__":
        return
    assert here in FLOORS, f"{here} has no floor"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "mintoken" or len(parts) == 1 or parts[1] == "__version__":
            continue
        there, name_there = parts[1], "/".join(parts[1:3])
        if (here, there) in SIDEWAYS or (name_here, name_there) in SIDEWAYS:
            continue
        if here == there:
            fine = parts[2:3] in (["base"], []) or name_here == "cli/__init__"
            assert fine, f"{path} imports its sibling {name}"
        else:
            assert FLOORS[there] < FLOORS[here], f"{path} imports {name}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_outside_libraries_have_one_home(path: Path) -> None:
    here = module_of(path)
    if here == "__init__":
        return
    for name in imports(path):
        library = name.split(".")[0]
        if library in HOMES:
            assert here in HOMES[library], f"{path} imports {library}"
        if name.startswith("aiohttp") and library == "aiohttp":
            assert FLOORS[here] >= 4 or here == "upstream", f"{path} imports aiohttp"


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted((ROOT / "benchmarks").glob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_files_and_functions_stay_small(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    assert text.count("\n") <= LONG_FILES.get(name, 300), f"{name} has grown too long"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{name} does not say what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            limit = LONG_FUNCTIONS.get(f"{name}:{node.name}", 45)
            assert lines <= limit, f"{name}: {node.name} has {lines} lines"


def test_every_module_has_its_twin() -> None:
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    twins = {
        "protocols": "protocols", "stores": "stores", "middlewares": "errors", "routes": "life",
        "app": "life", "context": "life", "accounts": "ledger", "relay": "streaming",
        "models": "life", "people": "sessions", "shapes": "openapi", "shown": "control_plane",
        "exchange": "life", "chat_request": "chat_asked",
        "usage_shown": "api_usage", "reports": "stores", "options": "config",
        "stand_in": "demo", "admin": "cli", "admin_rules": "rules", "checks": "cli",
        "tables": "cli", "vocabulary": "tokens", "files": "keys",
        "connection": "server", "worker": "parent", "eval_records": "eval_journal",
        "eval_ask": "evaluate", "eval_plan": "evaluate", "eval_page": "eval_report",
        "rehearsal": "evaluate",
    }  # fmt: skip
    for path in FILES:
        module = module_of(path)
        if module not in ("__init__", "__main__"):
            assert twins.get(module, module) in tests, f"{module} has no test"
