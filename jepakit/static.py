"""Read the constructor of a class from its source: nothing is imported, so nothing is slow."""

import ast
import functools
import importlib.util
import typing
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NamedTuple

from jepakit.errors import ConfigError, nearest

PLAIN = (int, float, bool, str)
"""What a configuration's leaves can be, beside nothing."""


class Argument(NamedTuple):
    """One argument of a constructor. ``default`` is ``dataclasses.MISSING`` where there is none."""

    name: str
    annotation: Any = Any
    default: Any = MISSING


def variadic(name: str) -> ConfigError:
    """What is wrong with ``*args`` and ``**kwargs``."""
    return ConfigError(f"its constructor takes {name}, so its configuration cannot be read off; name each argument")


class _Source(NamedTuple):
    """A parsed module, its name, and whether it is a package."""

    module: str
    tree: ast.Module
    is_package: bool


def read(target: str) -> tuple[Argument, ...]:
    """The arguments of the class ``"package.module:Class"``. Raises ConfigError where it has none to be read."""
    module, _, name = target.partition(":")
    found = _find_class(_parse(module), name)
    if found is None:
        classes = [node.name for node in _parse(module).tree.body if isinstance(node, ast.ClassDef)]
        raise ConfigError(f"module {module!r} has no class {name!r}{nearest(name, classes)}")
    return _of_node(*found)


@functools.cache
def _parse(module: str) -> _Source:
    """Parse a module's source. Only the top package is looked up, which imports nothing; below it files are walked."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ConfigError(f"module {top!r} is not installed")
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    candidates = [root.joinpath(*parts) for root in roots]
    files = [path for at in candidates for path in (at / "__init__.py", at.with_suffix(".py")) if path.is_file()]
    if not parts and not files and spec.origin:
        files = [Path(spec.origin)]
    if not files:
        raise ConfigError(f"module {module!r} has no source file")
    return _Source(module, ast.parse(files[0].read_text("utf-8")), files[0].name == "__init__.py")


def _find_class(source: _Source, name: str) -> tuple[_Source, ast.ClassDef] | None:
    """The class of that name, followed through ``from ... import``."""
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return source, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find_class(_parse(_absolute(source, node)), alias.name)
    return None


def _absolute(source: _Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.module if source.is_package else source.module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _of_node(source: _Source, node: ast.ClassDef) -> tuple[Argument, ...]:
    scope = _scope(source)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return tuple(_of_function(statement.args, scope))
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return tuple(_argument(each.target, each.annotation, each.value, scope) for each in _fields(node))
    for base in node.bases:  # bases of other packages (torch's Module, a Protocol) bring no arguments
        found = _find_class(source, base.id) if isinstance(base, ast.Name) and _is_local(source, base.id) else None
        if found and (inherited := _of_node(*found)):
            return inherited
    return ()


def _is_local(source: _Source, name: str) -> bool:
    """Whether a base is written in this package: others need not be installed to be read."""
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return _absolute(source, node).partition(".")[0] == source.module.partition(".")[0]
    return True


def _fields(node: ast.ClassDef) -> Iterator[Any]:
    return (each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name))


def _of_function(spec: ast.arguments, scope: dict[str, Any]) -> Iterator[Argument]:
    for stars, extra in (("*", spec.vararg), ("**", spec.kwarg)):
        if extra:
            raise variadic(stars + extra.arg)
    plain = [*spec.posonlyargs, *spec.args]
    defaults = [*[None] * (len(plain) - len(spec.defaults)), *spec.defaults]
    keywords = zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    for node, default in [*zip(plain[1:], defaults[1:], strict=True), *keywords]:
        yield _argument(node, node.annotation, default, scope)


def _argument(node: Any, annotation: ast.expr | None, default: ast.expr | None, scope: dict[str, Any]) -> Argument:
    name = node.arg if isinstance(node, ast.arg) else node.id
    try:
        value = MISSING if default is None else _evaluate(default, scope)
    except Exception as error:
        text = ast.unparse(default) if default else ""
        raise ConfigError(f"the default of {name!r}, {text}, is not plain data (numbers, texts, lists)") from error
    try:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        held = Any if annotation is None else _evaluate(annotation, scope)
    except Exception:  # a type of another module: its values are held as they are
        held = Any
    return Argument(name, held, value)


def _scope(source: _Source) -> dict[str, Any]:
    """What annotations and defaults may speak of: plain types, ``typing``, and the module's own plain constants."""
    scope: dict[str, Any] = {each.__name__: each for each in (*PLAIN, list, tuple, dict)}
    scope |= {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "List", "Tuple", "Dict")}
    scope |= {"typing": typing, "Sequence": list}
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                scope[node.targets[0].id] = _evaluate(node.value, scope)
            except Exception:  # not a plain constant: then no default can name it, and one that does is refused
                continue
    return scope


def _evaluate(node: ast.expr, scope: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<signature>", "eval"), {"__builtins__": {}}, scope)
