"""Our files, as readers that others wrote see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ringtun.installer import Database, Inclusion, merge
from tests.installer.readers import agree
from tests.installer.samples import MODULE_ID, SUFFIX, change, module, product


def merged() -> Database:
    one = module()
    one.tables["ModuleDependency"].remove(MODULE_ID, 0, f"Other{SUFFIX}", 0)
    return merge(product(), [Inclusion(one, ["All"], "INSTALLFOLDER")])


@pytest.mark.parametrize("make", [module, product, merged])
def test_readers_agree(make: Callable[[], Database], tmp_path: Path) -> None:
    file = tmp_path / ("file.msm" if make is module else "file.msi")
    make().write(file)
    agree(file, tmp_path)


def test_agreement_can_fail(tmp_path: Path) -> None:
    """What the readers see is compared indeed: a name of a file that is none is noticed."""
    database = product()
    database.write(tmp_path / "file.msi")
    agree(tmp_path / "file.msi", tmp_path / "right")
    change(database, "File", "Readme", File="Other")
    database.write(tmp_path / "file.msi")
    with pytest.raises(ValueError, match="not found in media cabinet"):
        agree(tmp_path / "file.msi", tmp_path / "wrong")
