"""The parts of a serving run: models and machines by name, memory, schedulers, routers."""

from __future__ import annotations

import msgspec

from sim.errors import InputError, hint, quoted
from sim.mapping.parallelism import check_devices
from sim.scenario import Scenario, resolve
from sim.serve.config import Serving
from sim.serve.host import host_of, load_engine
from sim.serve.memory import Blocks, kv_capacity
from sim.serve.pipeline import PipelineWorker
from sim.serve.policies import ORDERS, policy
from sim.serve.pricing import Pricer
from sim.serve.rate import plain
from sim.serve.replica import Recorder, Replica, ReplicaParts
from sim.serve.routing import router
from sim.serve.single_stage import SingleStageWorker
from sim.serve.source import RequestSource


class Setup:
    """The parts of a serving run. Raises InputError, or Infeasible if it cannot run."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving = plain(serving)
        split = serving.parallelism
        if split.microbatches > 1:
            raise InputError("serving makes its own micro-batches; leave --microbatches out")
        self.resolved = resolve(
            Scenario(
                model=serving.model,
                on=serving.on,
                parallelism=split,
                lowering=serving.lowering,
                dtype=serving.dtype,
                kv_dtype=serving.kv_dtype,
                seed=serving.seed,
                set=serving.set,
            )
        )
        machine, model = self.resolved.machine, self.resolved.model
        if model.encoder and model.decoder:
            raise InputError(f"{model.name}: encoder-decoders cannot be served yet; use run")
        check_devices(split, len(machine.system.devices), machine.name)
        knobs = serving.knobs
        self.capacity = kv_capacity(
            self.resolved,
            knobs.max_num_batched_tokens,
            serving.gpu_memory_utilization,
            knobs.block_size,
        )
        if serving.kv_blocks:
            self.capacity = msgspec.structs.replace(
                self.capacity, blocks=serving.kv_blocks, given=True
            )
        if serving.order not in ORDERS:
            raise InputError(
                f"order {quoted(serving.order)} is not known{hint(serving.order, ORDERS)}"
            )
        policy(serving.scheduler)
        self.host = host_of(load_engine(serving.engine), serving.host_time_us)
        self.route = router(serving.router)
        self.source = RequestSource(serving.traffic, serving.seed, encoder=model.decoder is None)

    def replica(self, number: int, pricer: Pricer, recorder: Recorder) -> Replica:
        """A new replica."""
        serving, knobs = self.serving, self.serving.knobs
        parts = ReplicaParts(
            pricer=pricer,
            policy=policy(serving.scheduler),
            knobs=knobs,
            blocks=Blocks(self.capacity.blocks, knobs.block_size, knobs.enable_prefix_caching),
            host=self.host,
            order=ORDERS[serving.order],
            leap=serving.shortcuts,
            kv_bytes=self.capacity.block_bytes,
        )
        worker = PipelineWorker(parts) if serving.parallelism.pp > 1 else SingleStageWorker(parts)
        return Replica(parts, worker, recorder, number)
