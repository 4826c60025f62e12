"""A package that is not there: one line says how to get it."""

import sys

import pytest

from utils.errors import UserError
from utils.packages import INSTALLATION, require_package


@pytest.mark.parametrize("module", ["horovod.torch", "apex.normalization"])
def test_a_package_that_is_not_there(monkeypatch, module):
    package = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as told:
        require_package(module)
    said = str(told.value)
    assert said.startswith(f"{module} cannot be imported") and said.endswith(INSTALLATION[package])


def test_a_package_that_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", sys)
    assert require_package("apex") is sys
