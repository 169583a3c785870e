"""What health's watchers are told while models load."""

import asyncio
from types import SimpleNamespace

import pytest

from batchmill.app import App
from batchmill.config import ServerConfig


@pytest.mark.parametrize("ready", [True, False])
def test_watchers_learn_of_models_as_they_come_and_go_and_of_the_server(tmp_path, ready):
    """Each look finds what stands in the list; the last one ends the telling."""
    app, told = App(tmp_path, ServerConfig()), []
    looks = iter([{"a": True}, {"a": True, "b": True, "broken": False}, {"b": False}])

    def look():
        models = next(looks, None)
        if models is None:
            raise asyncio.CancelledError
        app._models = {name: SimpleNamespace(pick=lambda served=served: served or None) for name, served in models.items()}

    class Services:
        def set_whole(self, serving):
            told.append(("whole", serving))
            look()

        def set_models(self, serving, names):
            told.extend((name, serving) for name in names)

    look()
    app._server = SimpleNamespace(ready=lambda: ready)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(app._tell_health(Services()))
    assert told == [("a", True), ("whole", ready), ("b", True), ("whole", ready), ("a", False), ("b", False), ("whole", ready)]
