"""Models serve as they are loaded, and tables are not made for each of them."""

import threading

from batchmill.registry.first_pass import FirstPass
from batchmill.registry.layout import ModelFolder
from batchmill.registry.status import ModelStatus

WAIT = 10  # seconds; what is waited for comes at once


class Published(list):
    """(names so far, whether these are all) of every table; waits for one."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()

    def __call__(self, models, complete):
        with self.changed:
            self.append((list(models), complete))
            self.changed.notify_all()

    def wait_for(self, wanted):
        with self.changed:
            return self.changed.wait_for(lambda: any(wanted(names, complete) for names, complete in self), WAIT)


def start(names, load=lambda folder: ModelStatus(folder.name), stopped=lambda: False):
    published = Published()
    FirstPass([ModelFolder(name, None) for name in names], load, published, stopped).start()
    return published


def test_a_model_is_published_while_a_later_one_still_loads():
    go_on = threading.Event()
    published = start(["a", "b", "c"], lambda folder: go_on.wait(WAIT if folder.name == "c" else 0) or ModelStatus(folder.name))
    assert published.wait_for(lambda names, complete: names == ["a", "b"] and not complete)
    go_on.set()
    assert published.wait_for(lambda names, complete: names == ["a", "b", "c"] and complete)


def test_tables_are_far_fewer_than_models():
    published = start([str(number) for number in range(1000)])
    assert published.wait_for(lambda names, complete: complete and len(names) == 1000)
    assert len(published) < 100


def test_an_empty_registry_is_complete_too():
    assert start([]).wait_for(lambda names, complete: complete)


def test_nothing_more_is_loaded_once_it_is_stopped():
    seen = []
    published = start(["a", "b"], lambda folder: seen.append(folder.name) or ModelStatus(folder.name), lambda: bool(seen))
    assert published.wait_for(lambda names, complete: complete)
    assert seen == ["a"]


def test_an_error_of_ours_fails_one_model_and_the_next_is_loaded():
    def load(folder):
        if folder.name == "a":
            raise AssertionError("ours")
        return ModelStatus(folder.name)

    published = start(["a", "b"], load)
    assert published.wait_for(lambda names, complete: complete and names == ["a", "b"])
