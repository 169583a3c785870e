"""A model whose model.yaml says `rollout:`, with a real registry folder, keeper, book and conductor.

Time is passed in; a "model" is a line of text that says its one input, and whether it can be loaded.
"""

from types import SimpleNamespace

from batchmill.registry import layout
from batchmill.registry.keeper import Keeper
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout.book import Book
from batchmill.rollout.conductor import Conductor
from batchmill.rollout.evidence import Arm, Moments
from batchmill.rollout.evidence import Shadow as Compared
from batchmill.rollout.table import entry_of
from batchmill.store import Store
from reference.registry import AtOnce

STEP = "min_samples: 100, min_secs: 1"
TRAFFIC = f"rollout: {{steps: [{{share: 10, {STEP}}}, {{share: 100, {STEP}}}], keep_warm_secs: 5}}\n"
SHADOW = f"rollout: {{steps: [{{share: 100, shadow: true, {STEP}}}, {{share: 100, {STEP}}}], keep_warm_secs: 5}}\n"


class Mill:
    """One model m in a registry. tables: of each that was published, the versions that a request without one could get."""

    def __init__(self, home, settings, *versions):
        self.root, self.store, self.now = home / "registry", Store(), 1000.0
        self.tables, self.events, self.bad = [], [], set()
        self.settings(settings)
        for number in versions:
            self.write(number)
        self.begin()

    def begin(self, **options):
        """As a server that starts, on what is kept."""
        self.tables, self.models, self.complete = [], {}, False
        self.book = Book(self.store)
        self.keeper = Keeper(self.root, self.load, self.publish, lambda _: None, adjust=lambda *_: None, poll_secs=0.05, store=self.store,
                             naming=self.book.naming, clock=lambda: self.now, loaders=AtOnce(), **options)
        self.conductor = Conductor(self.store, self.book, self.keeper.change, self.note, lambda: self.now)
        self.keeper.first_look()
        self.turn()

    def load(self, name, number, path, settings):
        text = path.read_text()
        if "broken" in text:
            return VersionStatus(str(number), "FAILED", "golden: output y differs")
        served = SimpleNamespace(version=str(number), routed=0, arm=Arm(), compared=Compared())
        model = SimpleNamespace(inputs=(("x", "FP32", (len(text.split()[0]),), ()),), outputs=())
        return VersionStatus(str(number), "READY", served=served, model=model, stamp=layout.stamp_of(path.parent))

    def publish(self, models, complete):
        self.models, self.complete = models, complete
        if "m" in models and models["m"].ready():
            entry = entry_of(models["m"])
            self.tables.append({version for _, version in entry.shares} or {entry.standard and entry.standard.version})

    def note(self, action, model, version, about):
        self.events.append((action, version, about.get("reason", "")))

    def settings(self, text):
        (self.root / "m").mkdir(parents=True, exist_ok=True)
        (self.root / "m" / "model.yaml").write_text(text)

    def write(self, number, text="x"):
        """By a rename, and never the same size: a stamp tells them apart whatever the clock says."""
        self.size = getattr(self, "size", 0) + 1
        aside = self.root / "m" / f".{number}"
        aside.mkdir(parents=True)
        (aside / "model.onnx").write_text(text + " " * self.size)
        folder = self.root / "m" / str(number)
        if folder.exists():
            (aside / "model.onnx").rename(folder / "model.onnx")
            aside.rmdir()
        else:
            aside.rename(folder)

    def turn(self):
        """The registry's thread, until nothing changes any more."""
        for _ in range(8):
            self.now += 0.1
            self.keeper.turn(0)

    def go(self, rounds=1):
        """A while of requests to all that serve, with looks."""
        for _ in range(rounds):
            self.turn()
            for version in self.model.ready():
                wrong = 60 if version.number in self.bad else 0
                version.served.arm = version.served.arm.plus(Arm(200, wrong, Moments(200, -5.0, 0.01)))
                version.served.compared = version.served.compared.plus(Compared(200, 200 - wrong))
            self.conductor.tick(self.models if self.complete else {})
            self.turn()

    def call(self, change):
        done = self.keeper.change("m", self.book.changed(change))
        self.turn()
        done.result(0)

    @property
    def model(self) -> ModelStatus:
        return self.models["m"]

    @property
    def answers(self):
        return "".join(sorted(self.tables[-1]))

    @property
    def waits(self):
        return {one["version"]: one["reason"] for one in self.conductor.told("m")["waiting"]}

    @property
    def started(self):
        """The candidates of all rollouts so far."""
        return [version for action, version, _ in self.events if action == "rollout.started"]

    @property
    def status(self):
        return self.conductor.told("m")["status"]
