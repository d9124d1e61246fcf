"""Running tasks on a Dask cluster: that of a running scheduler, or processes of this machine.

The workers must see the atlas under the same path, as on a cluster's shared file system, and have
this package installed. Tasks return small values; results are written to the atlas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import MissingExtra, QueryError, SpecclipError

if TYPE_CHECKING:
    from dask.distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")
_CONNECT_S = "20s"
# tasks queued ahead for each thread, so that none waits and a stop loses little
_AHEAD = 2


@contextmanager
def dask_client(scheduler: str | None = None, workers: int | None = None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of as many local processes; closed at the end.

    Parameters
    ----------
    scheduler
        For example ``tcp://10.0.0.1:8786``, or the path of a scheduler file (``scheduler.json``).
    workers
        Local processes, of one thread each, where no scheduler is named; one by default.

    Raises
    ------
    MissingExtra
        If Dask is not installed.
    QueryError
        If no scheduler answers at the address, or it has no workers.
    """
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingExtra("distributed", "dask", "Work on a cluster") from error
    if scheduler is None:
        with (
            LocalCluster(
                n_workers=workers or 1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1", silence_logs=50
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    where = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
    try:
        client = Client(**where, timeout=_CONNECT_S, set_as_default=True)
    except (OSError, ValueError, TimeoutError) as error:
        raise QueryError(
            f"No Dask scheduler answers at {scheduler} ({error}).",
            "Give the address that `dask scheduler` prints, such as tcp://host:8786.",
        ) from error
    try:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise QueryError(
                f"The Dask scheduler at {scheduler} has no workers.", f"Start some: dask worker {scheduler}"
            )
        yield client
    finally:
        client.close()


def cluster_map(
    client: Client,
    function: Callable[..., Result],
    items: Sequence[Item],
    *shared: Any,
) -> Iterator[tuple[Item, Result]]:
    """Run `function(item, *shared)` for every item on the cluster; yield results in the order of completion.

    Parameters
    ----------
    function
        A function of a module that the workers can import.
    shared
        Further arguments, the same for all tasks, sent once.

    Raises
    ------
    SpecclipError
        Raised by a task, unchanged; the other tasks are then cancelled.
    QueryError
        If a task failed in another way, for example because its worker ran out of memory.
    """
    from dask.distributed import as_completed

    threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    todo = iter(enumerate(items))
    # impure: a shard that has gone missing must be made again although the arguments are the same
    futures: dict[Any, Item] = {}

    def submit() -> Any:
        number, item = next(todo, (-1, None))
        if number < 0:
            return None
        future = client.submit(function, item, *shared, pure=False)
        futures[future] = item  # type: ignore[assignment]
        return future

    first = [future for _ in range(max(1, threads) * _AHEAD) if (future := submit()) is not None]
    running = as_completed(first)
    try:
        for future in running:
            item = futures.pop(future)
            yield item, _result(future, item)
            if (more := submit()) is not None:
                running.add(more)
    finally:
        if futures:
            client.cancel(list(futures))


def _result(future: Any, item: Any) -> Any:
    try:
        return future.result()
    except SpecclipError:
        raise
    except Exception as error:
        raise QueryError(
            f"A task of the cluster failed ({item}): {type(error).__name__}: {error}",
            "Check that the workers have this package, the same atlas path and enough memory; "
            "finished shards are kept, so the command can be repeated.",
        ) from error
