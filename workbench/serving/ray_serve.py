"""A measured configuration as a deployment of Ray Serve, called by its handle: more replicas where more questions wait.

Questions that wait in a replica become one batch by `workbench.serving.batching`, as in `workbench serve`; HTTP is not Ray's.
Ray is imported only by `application` and `ask`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError, MissingExtraError
from workbench.experiment.bundled import bundle_at
from workbench.pipeline import Asked, Pipeline
from workbench.results.run import Run
from workbench.serving.asking import MEMORY_BYTES, Asking, Service
from workbench.serving.batching import MOST_TOGETHER
from workbench.serving.caller import Caller
from workbench.serving.elsewhere import HANGS_AFTER_DEADLINES
from workbench.serving.gate import gate
from workbench.serving.problems import TooLateError
from workbench.serving.settings import Caching, ServiceSettings
from workbench.store.progress import Progress

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

NAME = "answers"
ATTEMPTS = 5  # to ask a question, each of another replica where the one before was lost

log = logging.getLogger(__name__)


class Answers:
    """A replica: the pipeline of a run's configuration, behind a batcher of its own.

    It starts only where measured answers come out the same again, so on no node of another arithmetic.
    """

    def __init__(self, run: str, configuration: str | None, settings: ServiceSettings) -> None:
        """Opens the pipeline.

        Args:
            run: folder of a run or bundle, on the replica's node.
            configuration: id, beginning of one, or label; default: the promoted one.
            settings: of the service.

        Raises:
            InputError: no such run or configuration here, or other components, libraries or arithmetic than measured.
            StageFailedError: the gate; see `workbench.serving.gate`.
        """
        pipeline = Pipeline.open(run, configuration, Progress())
        pipeline.session.keep_in_memory(MEMORY_BYTES)
        log.info("%s", gate(pipeline, settings.serve.gate))
        pipeline.warm()
        self.asking = Asking(Service(pipeline, settings.fallback), settings)

    async def answer(self, question: str, history: Sequence[Any] = ()) -> bytes:
        """The response that POST /v1/answers gives, as JSON.

        Args:
            question: the question.
            history: what was said before it, as `workbench.pipeline.Pipeline.ask` takes it.

        Raises:
            workbench.serving.problems.ProblemError: why there is none.
        """
        request_id = uuid.uuid4().hex
        caller = Caller(request_id, request_id)  # a handle is not one client, of which there is a limit
        answered = await self.asking.answer(Asked(question, history), caller)
        return answered.response(request_id)

    def check_health(self) -> None:
        """Called by Ray, which starts a replica anew where this raises.

        Raises:
            RuntimeError: the model hangs.
        """
        limit = HANGS_AFTER_DEADLINES * self.asking.settings.serve.deadline
        if self.asking.service.batcher.busy_seconds > limit:
            raise RuntimeError(f"the model has worked at the same questions for more than {limit:g} s")


def application(
    run: str | Path,
    configuration: str | None = None,
    settings: ServiceSettings | None = None,
    replicas: tuple[int, int] = (1, 4),
    processors: float = 1.0,
) -> Application:
    """The deployment, for `ray.serve.run(application(RUN), name=NAME, route_prefix=None)`.

    Args:
        run: folder of a run, or of an unpacked bundle, that is at the same place on each node.
        configuration: id, beginning of one, or label; default: the promoted one.
        settings: of the service, of which room, memory and fallbacks are used; default: the defaults.
        replicas: fewest and most. There are more where more than a batch of questions wait for each.
        processors: of a replica, which computes with as many threads.

    Raises:
        InputError: no such run or configuration, or numbers that are none of replicas or processors.
        MissingExtraError: Ray Serve is not installed.
    """
    least, most = replicas
    if not 1 <= least <= most:
        raise InputError(f"replicas: received {least} to {most}; allowed: at least 1, and no more at least than at most")
    if not processors > 0:
        raise InputError(f"processors: received {processors:g}; allowed: more than 0")
    folder, known = Path(run).resolve(), settings or ServiceSettings(keep="none", cache=Caching(disk_mb=0.0))
    packed = bundle_at(folder)
    found = Run.open(packed.run if packed else folder)
    if configuration:
        found.find(configuration)
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("ray[serve]", "ray-serve", "a deployment of Ray Serve") from error
    made = serve.deployment(
        name=NAME,
        max_ongoing_requests=known.serve.queue,
        graceful_shutdown_timeout_s=known.serve.deadline,  # one that is not needed any more answers what it has
        autoscaling_config={"min_replicas": least, "max_replicas": most, "target_ongoing_requests": MOST_TOGETHER},
        ray_actor_options={"num_cpus": processors},
    )
    return made(Answers).bind(str(folder), configuration, known)


async def ask(handle: DeploymentHandle[Any], question: str, history: Sequence[Any] = (), seconds: float = 120.0) -> bytes:
    """Asks a deployment; where the replica that has the question is lost, another one, since its answer is the same.

    Args:
        handle: of the deployment.
        question: the question.
        history: what was said before it.
        seconds: in all, also while there is no replica.

    Returns:
        The response that POST /v1/answers gives, as JSON.

    Raises:
        workbench.serving.problems.ProblemError: why there is none; `workbench.serving.problems.TooLateError` after the seconds.
        ray.exceptions.RayError: several replicas in a row were lost.
    """
    from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError

    try:
        async with asyncio.timeout(seconds):
            for _ in range(ATTEMPTS - 1):
                try:
                    return bytes(await handle.answer.remote(question, list(history)))
                except (RayActorError, NodeDiedError, ObjectLostError) as error:
                    log.warning("a replica was lost, and its question is asked again: %s", type(error).__name__)
            return bytes(await handle.answer.remote(question, list(history)))
    except TimeoutError as error:
        raise TooLateError(f"the deployment gave no answer within {seconds:g} s", retry_after=5) from error
