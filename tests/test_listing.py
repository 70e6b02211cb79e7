"""What the source says: where an attribute is assigned, who reads it, where a class stands."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import specimens
from torch import nn

from vaedoctor.examine.code.listing import (
    assigned_at,
    calls_in,
    class_span,
    functions_in,
    header_of,
    is_own_code,
    methods_of,
    text_of,
    walks_children,
)
from vaedoctor.examine.code.readers import reads_of
from vaedoctor.finding import Span

Written = Callable[[str], ModuleType]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a file and loads it; every file has a path of its own."""
    count = iter(range(100))

    def load(text: str) -> ModuleType:
        path = tmp_path / f"written_{next(count)}.py"
        path.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(text))
        return specimens.load(path)

    return load


def line_of(module: ModuleType, text: str) -> int:
    """The number of the only line with this text."""
    assert module.__file__
    lines = Path(module.__file__).read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, start=1) if text in line]
    return number


class TestText:
    def test_of_a_part_of_a_line(self, written: Written) -> None:
        module = written("value = 1 + 23\n")
        assert text_of(Span(module.__file__ or "", 3, 9, 3, 15)) == "1 + 23"

    def test_of_several_lines_is_one_line(self, written: Written) -> None:
        module = written("value = [\n    1,\n    2,\n]\n")
        assert text_of(Span(module.__file__ or "", 3, 9, 6, 2)) == "[ 1, 2, ]"

    def test_to_the_end_of_the_line(self, written: Written) -> None:
        assert text_of(Span(written("value = 5\n").__file__ or "", 3, 9, 3, 0)) == "5"

    def test_of_nothing(self) -> None:
        assert text_of(None) == ""
        assert text_of(Span("/no/such/file.py", 3, 1, 3, 5)) == ""

    def test_of_a_with_statement_is_its_header(self, written: Written) -> None:
        module = written(
            """
            with torch.no_grad(), torch.device("cpu"):
                value = torch.ones(3)
            """
        )
        file = module.__file__ or ""
        block = header_of(Span(file, 4, 1, 5, 26))
        assert text_of(block) == 'torch.no_grad(), torch.device("cpu")'
        other = Span(file, 5, 5, 5, 26)
        assert header_of(other) is other


class TestAssigned:
    def test_in_init_with_the_whole_statement(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.layer = nn.Linear(
                        2, 3
                    )
            """
        )
        at = assigned_at(module.Model, "layer")
        assert at is not None
        assert at.line == line_of(module, "self.layer")
        assert text_of(at) == "self.layer = nn.Linear( 2, 3 )"

    @pytest.mark.parametrize(
        "statement",
        [
            "self.thing = nn.Linear(2, 2)",
            "self.other, self.thing = 1, 2",
            "self.thing: nn.Module = nn.Linear(2, 2)",
            "self.other = self.thing = 3",
            "self.register_buffer('thing', torch.ones(2))",
            "self.register_parameter('thing', None)",
            "self.add_module('thing', nn.Linear(2, 2))",
            "self.thing['key'] = nn.Linear(2, 2)",
        ],
    )
    def test_however_it_is_written(self, written: Written, statement: str) -> None:
        module = written(
            f"""
            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    {statement}
            """
        )
        assert text_of(assigned_at(module.Model, "thing")) == statement

    def test_init_before_other_methods_and_the_class_before_its_bases(
        self, written: Written
    ) -> None:
        module = written(
            """
            class Base(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.first = 1
                    self.second = 2

            class Model(Base):
                def reset(self):
                    self.first = 3
                    self.third = 4

                def __init__(self):
                    super().__init__()
                    self.third = 5
            """
        )
        lines = [
            line_of(module, text)
            for text in ("self.first = 3", "self.second = 2", "self.third = 5")
        ]
        places = [assigned_at(module.Model, name) for name in ("first", "second", "third")]
        assert [p and p.line for p in places] == lines

    def test_nowhere(self, written: Written) -> None:
        module = written("class Model(nn.Module):\n    pass\n")
        assert assigned_at(module.Model, "layer") is None
        assert assigned_at(nn.Linear, "weight") is None

    def test_two_classes_of_one_name_are_kept_apart(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def __init__(self):
                    self.layer = 'first'

            First = Model

            class Model(nn.Module):
                def __init__(self):
                    self.layer = 'second'
            """
        )
        assert text_of(assigned_at(module.First, "layer")) == "self.layer = 'first'"
        assert text_of(assigned_at(module.Model, "layer")) == "self.layer = 'second'"
        spans = class_span(module.First), class_span(module.Model)
        assert [s and s.line for s in spans] == [4, 10]


class TestReads:
    def read(self, module: ModuleType, attribute: str) -> list[tuple[int, bool]]:
        model = module.Model()
        return sorted((r.line, r.switched) for r in reads_of(model, model, attribute))

    def test_in_methods_and_not_in_init(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.layer = nn.Linear(2, 2)
                    print(self.layer, end="")

                def forward(self, x):
                    return self.layer(x)
            """
        )
        assert self.read(module, "layer") == [(line_of(module, "self.layer(x)"), False)]

    def test_in_another_file_of_the_folder(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.layer, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

                def forward(self, x):
                    return x
            """
        )
        other = written(
            """
            def train(model, x):
                return model.layer(x)

            class Other:
                def forward(self, x):
                    return self.spare(x)
            """
        )
        assert self.read(module, "layer") == [(line_of(other, "model.layer"), False)]
        assert self.read(module, "spare") == []

    def test_under_an_if_it_is_switched(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def forward(self, x):
                    if self.flag:
                        x = self.layer(x)
                    return x if x is None else self.other(x)
            """
        )
        assert self.read(module, "flag") == [(line_of(module, "self.flag"), False)]
        assert self.read(module, "layer") == [(line_of(module, "self.layer"), True)]
        assert self.read(module, "other") == [(line_of(module, "self.other"), True)]

    def test_from_outside_and_by_name(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def forward(self, x):
                    return getattr(self, "layer")(x)

            def loss(model):
                return model.layer.weight.sum()
            """
        )
        lines = [line_of(module, "getattr"), line_of(module, "model.layer.weight")]
        assert [line for line, _ in self.read(module, "layer")] == lines

    def test_writing_is_not_reading_and_another_class_reads_its_own(self, written: Written) -> None:
        module = written(
            """
            class Other(nn.Module):
                def forward(self, x):
                    return self.layer(x)

            class Model(nn.Module):
                def reset(self):
                    self.layer = None
            """
        )
        assert not self.read(module, "layer")


class TestClasses:
    def test_the_span_is_the_class_line(self, written: Written) -> None:
        module = written(
            """
            def marked(kind):
                return kind

            @marked
            @marked
            class Model(
                nn.Module
            ):
                class Inner(nn.Module):
                    pass

            if True:
                class Indented(nn.Module):  # a comment
                    pass
            """
        )
        kinds = (module.Model, module.Model.Inner, module.Indented)
        spans = [class_span(kind) for kind in kinds]
        texts = ["class Model(", "class Inner(nn.Module):", "class Indented(nn.Module):"]
        assert [s and s.line for s in spans] == [line_of(module, text) for text in texts]
        assert [s and s.col for s in spans] == [1, 5, 5]
        assert text_of(spans[1]) == texts[1]

    def test_a_class_without_a_file_has_none(self) -> None:
        namespace: dict[str, type] = {}
        exec("class Made: pass", namespace)
        assert class_span(namespace["Made"]) is None

    def test_torchs_code_is_not_the_users(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def forward(self, x):
                    return x

            class Silent(nn.Module):
                pass
            """
        )
        assert is_own_code(module.Model)
        assert not is_own_code(nn.Linear)
        assert not is_own_code(module.Silent)

    def test_methods_of_the_class_and_its_bases(self, written: Written) -> None:
        module = written(
            """
            class Base(nn.Module):
                def shared(self):
                    def inner():
                        return 1
                    return inner()

            class Model(Base):
                async def later(self):
                    pass
            """
        )
        assert [m.name for m in methods_of(module.Model)] == ["later", "shared", "inner"]
        assert {m.name for m in functions_in(module.__file__ or "")} == {"later", "shared", "inner"}

    def test_calls_by_name(self, written: Written) -> None:
        module = written(
            """
            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.start = torch.randn(3)

                def forward(self, x):
                    return x + torch.randn(3)
            """
        )
        (span,) = calls_in(module.Model, frozenset({"randn"}))
        assert span.line == line_of(module, "x + torch.randn(3)")
        assert text_of(span) == "torch.randn(3)"

    @pytest.mark.parametrize(
        ("line", "walks"),
        [
            ("for layer in self.children(): x = layer(x)", True),
            ("x = list(self._modules.values())[0](x)", True),
            ("x = getattr(self, name)(x)", True),
            ("x = getattr(self, 'layer')(x)", False),
            ("x = self.layer(x)", False),
        ],
    )
    def test_layers_reached_without_their_name(
        self, written: Written, line: str, walks: bool
    ) -> None:
        module = written(
            f"""
            class Model(nn.Module):
                def forward(self, x, name="layer"):
                    {line}
                    return x
            """
        )
        assert walks_children(module.Model) is walks
