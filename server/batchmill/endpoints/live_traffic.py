"""REST's calls about versions in live traffic, in one list. Without gRPC's modules, whose names other clients' stubs have, too."""

from __future__ import annotations

from starlette.routing import Route

from batchmill.endpoints import feedback
from batchmill.endpoints.feedback import Assessor
from batchmill.endpoints.rollouts import Rollouts, rollouts
from batchmill.endpoints.routes import Switchboard, routes
from batchmill.endpoints.shadows import Shadows, shadows


def routed(switchboard: Switchboard, shadowing: Shadows, stepping: Rollouts, assessor: Assessor) -> list[Route]:
    return [*routes(switchboard), *shadows(shadowing), *rollouts(stepping), *feedback.routes(assessor)]
