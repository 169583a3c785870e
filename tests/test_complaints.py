"""How a mistake in keys and values is told, whoever the schema is of."""

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from batchmill import complaints


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Leaf(Part):
    depth: int = 0
    versions: int = 0


class Tree(Part):
    version: int = 0
    leaves: list[Leaf] | None = None
    by_name: dict[str, Leaf] = {}
    name: Annotated[str, StringConstraints(pattern="^[a-z]+$", max_length=5)] = "a"
    few: Annotated[list[int], Field(max_length=2)] = []

    @model_validator(mode="after")
    def check(self):
        if self.leaves and self.leaves[-1].depth == 7:
            raise complaints.Below(f"leaves.{len(self.leaves) - 1}.depth: less than 7 wanted")
        return self


@pytest.mark.parametrize(("given", "text"), [
    ({"versoin": 1}, "versoin: unknown key; did you mean 'version'?"),
    ({"versions": 1}, "versions: unknown key; did you mean 'version'?"),                  # misspelt, though leaves have it
    ({"depth": 1}, "depth: unknown key; did you mean 'leaves.depth'?"),
    ({"leaves": [{}, {"dept": 1}]}, "leaves.1.dept: unknown key; did you mean 'depth'?"),
    ({"by_name": {"dept": {"dept": 1}}}, "by_name.dept.dept: unknown key; did you mean 'depth'?"),
    ({"leaves": [3]}, "leaves.0: 3 given, keys such as {depth: ...} wanted"),
    ({"leaves": [{"depth": 1}, {"depth": 7}]}, "leaves.1.depth: less than 7 wanted"),
    ({"name": "A"}, "name: 'A' given, a text like '^[a-z]+$' wanted"),
    ({"name": "abcdef"}, "name: 'abcdef' given, at most 5 characters wanted"),
    ({"few": [1, 2, 3]}, "few: [1, 2, 3] given, at most 2 items wanted"),
    ([], "[] given, keys such as {version: ...} wanted"),
])
def test_a_mistake_is_told_with_its_place_and_the_nearest_key(given, text):
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(given)
    assert complaints.told(caught.value, Tree) == text


def test_what_is_no_json_is_told_as_that():
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate_json(b"{")
    assert complaints.told(caught.value, Tree).startswith("Invalid JSON")
