"""Which checks, in which order, on one process or on all ranks of a launch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

import gandist
from gandist.assembly import open_accelerator
from gandist.config import Config
from gandist.doctor import devices, launch, network, recipe, slurm, software, storage, tracking
from gandist.doctor.finding import Check, Finding, described, examined, fail, halves, softened
from gandist.doctor.page import Page
from gandist.doctor.rounds import Rounds
from gandist.errors import EXIT_FAILED, GandistError, MachineError
from gandist.runtime import machine
from gandist.runtime.distributed import Ranks
from gandist.runtime.interrupt import orders_interrupt
from gandist.runtime.place import Place
from gandist.runtime.probe import Reduction, measure_reductions

JOIN_SECONDS = 120.0  # for the ranks to find each other
SLOW_DISK_SECONDS = 60.0  # for looking at a disk, which may hang
FETCH_SECONDS = 600.0  # for an index that is fetched from afar

Named = tuple[str, Check]


def examine(
    config: Config,
    recipe_file: Path | None,
    *,
    seconds: float = 30.0,
    as_json: bool = False,
    allow_pipe: bool = False,
) -> int:
    """Look at everything and print what was found; return the exit code: 1 if something will not work, else 0.

    Args:
        config: of the run; without a recipe only what it says of the machine is looked at.
        recipe_file: whose run is tried; None for none.
        seconds: for measuring rounds.
        as_json: print one JSON object instead of lines.
        allow_pipe: whether a recipe's ``pipe:`` may be run.

    """
    place = Place()
    voice = place.rank == 0
    page = Page(sys.stdout if voice else None, as_json=as_json, aside=sys.stderr)
    whose = f" and at {recipe_file}" if recipe_file else ""
    page.title(f"gandist {gandist.__version__} looks at {place.host}{whose}")
    with orders_interrupt(), Examination(config, place, page) as examination:
        examination.machine()
        examination.network()
        examination.services()
        if recipe_file is not None:
            examination.run(seconds, allow_pipe=allow_pipe)
        page.close(recipe=str(recipe_file) if recipe_file else None)
        return examination.exit_code()


class Examination:
    """The checks of one call, on this rank and together with the others."""

    def __init__(self, config: Config, place: Place, page: Page) -> None:
        self.config, self.place, self.page = config, place, page
        self.broken = False  # the ranks are no longer in step: nothing more is done together
        self.device = torch.device("cpu")
        self.ranks = Ranks(0, 1, None)
        self.folder: Path | None = None  # for what is tried on the disk of the runs; all ranks see it
        self.reductions: Sequence[Reduction] = []
        self.job: slurm.Job | None = None
        self._finish: Callable[[], None] | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Examination:
        self.page.busy("waiting for all ranks" if self.place.launched_world > 1 else "loading")
        try:
            kind = machine.choose_device(self.config.execution)
            precision = machine.choose_precision(self.config.execution, kind)
            accelerator = open_accelerator(kind, precision, JOIN_SECONDS)
            self.device = accelerator.device
            self.ranks = Ranks.join(accelerator.process_index, accelerator.num_processes, JOIN_SECONDS)
            self._finish = accelerator.end_training
        except GandistError as error:
            self._cannot_begin(*halves(str(error)))
        except Exception as error:  # torch.distributed says it in several ways
            advice = "Look at the meeting point below: is it reached from every machine, and did every rank start?"
            self._cannot_begin(f"the ranks did not find each other: {described(error)}", advice)
        return self

    def _cannot_begin(self, fact: str, advice: str) -> None:
        self.broken = True
        self.page.section("Launch", [fail("launch", fact, advice)])

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        if self._finish is not None and self.ranks.world > 1 and not self.broken:
            gc.collect()
            self._finish()

    def exit_code(self) -> int:
        """Return the same code on all ranks, where they are still in step."""
        code = EXIT_FAILED if self.page.count("FAIL") else 0
        if self.broken:
            return EXIT_FAILED
        return int(self.ranks.from_main(code))

    # --- how checks are made ---------------------------------------------------------------------------------

    def _each(self, heading: str, *checks: Named, seconds: float = SLOW_DISK_SECONDS) -> None:
        """Make checks on every rank and print rank 0's, and what is worse elsewhere."""
        mine = [finding for name, check in checks for finding in examined(name, check, seconds)]
        found = mine if self.broken else launch.gather(self.ranks, mine, self.place.host)
        self.page.section(heading, found)

    def _each_machine(self, heading: str, *checks: Named) -> None:
        """Make checks on one rank of every machine."""
        self._each(heading, *(checks if self.place.local_rank == 0 else ()))

    def _together(self, heading: str, *checks: Named) -> None:
        """Make checks that all ranks take part in; one that breaks ends what is done together."""
        for name, check in checks:
            if self.broken:
                return
            try:
                found = check()
            except Exception as error:
                self.give_up(heading, name, error)
                return
            self.page.section(heading, found if self.ranks.main else [])

    def give_up(self, heading: str, name: str, error: Exception) -> None:
        """Tell of an error in something that all ranks take part in."""
        self.broken = self.ranks.world > 1
        fact, advice = halves(str(error)) if isinstance(error, GandistError) else (described(error), "")
        if not self.ranks.main:
            print(f"gandist doctor [rank {self.ranks.rank}]: {fact}. {advice}", file=sys.stderr)
        self.page.section(heading, [fail(name, fact, advice or "Nothing more was done together with other ranks.")])

    # --- the machine -----------------------------------------------------------------------------------------

    def machine(self) -> None:
        """Look at software, devices and disks."""
        execution, place = self.config.execution, self.place
        on_gpu = self.device.type == "cuda"
        self._each_machine(
            "Software",
            ("python", software.interpreter),
            ("torch", software.torch_build),
            ("libraries", software.libraries),
        )
        self._each_machine(
            "Machine",
            ("GPU", lambda: devices.gpu_findings(devices.gpus(), execution, place)),
            ("driver", devices.driver_findings),
            ("CPU", lambda: devices.core_findings(execution, place, on_gpu)),
            ("memory", lambda: devices.memory_findings(*devices.memory())),
            ("shared memory", lambda: devices.shared_memory_findings(execution.workers)),
            ("open files", devices.file_limit_findings),
        )
        root = self.config.run.root
        self._each_machine(
            "Disks",
            ("temporary folder", storage.temporary_findings),
            ("run folder", lambda: storage.run_root_findings(root)),
        )
        folder = self._workspace(root)
        if folder is not None and self.place.rank == 0:
            found = examined("writing", lambda: storage.writing_findings(folder), SLOW_DISK_SECONDS)
            self.page.section("Disks", found)

    def _workspace(self, root: Path) -> Path | None:
        """Make the folder that all ranks use, on rank 0; return it on all ranks."""
        if self.broken:
            return None
        try:
            made = self.ranks.on_main(
                lambda: self._undo.enter_context(storage.workspace(root.absolute())), MachineError
            )
        except MachineError:
            return None  # told by the check of the run folder
        self.folder = Path(self.ranks.from_main(str(made)))
        return self.folder

    # --- the network -----------------------------------------------------------------------------------------

    def network(self) -> None:
        """Look at names and ports, and at the ranks together."""
        place, ranks = self.place, self.ranks
        pair: list[Named] = []
        if place.launched_world == 1 and not self.broken:
            self.page.busy("starting two processes")
            pair = [("two processes", network.pair_findings)]
        met = ranks.world > 1  # then names led to where they should
        self._each_machine(
            "Network",
            ("host name", lambda: softened(network.host_findings(place), met)),
            ("interface", lambda: network.interface_findings(place)),
            ("meeting point", lambda: softened(network.meeting_findings(place), met)),
            ("ports", network.port_findings),
        )
        for name, check in pair:
            self.page.section("Network", examined(name, check))
        if ranks.world > 1:
            self._ranks()

    def _ranks(self) -> None:
        ranks, place = self.ranks, self.place
        mine = {**software.identity(), "recipe": recipe.recipe_digest(self.config)}
        self.page.busy("measuring between ranks")
        self._together(
            "Ranks",
            ("ranks", lambda: launch.world_findings(ranks, place)),
            ("same everywhere", lambda: launch.agreement_findings(ranks, mine)),
            ("clocks", lambda: launch.clock_findings(ranks)),
            ("all-reduce", self._bandwidth),
        )
        if self.folder is not None:
            folder = self.folder
            self._together("Ranks", ("shared folder", lambda: launch.shared_folder_findings(ranks, folder, place.host)))

    def _bandwidth(self) -> list[Finding]:
        self.reductions = measure_reductions(self.device, self.ranks.world)
        return launch.bandwidth_findings(self.ranks, self.reductions)

    # --- services --------------------------------------------------------------------------------------------

    def services(self) -> None:
        """Look at W&B and Slurm."""
        settings, place = self.config.tracking, self.place
        rank_0: list[Named] = [
            ("W&B", lambda: tracking.tracking_findings(settings)),
            ("W&B server", lambda: tracking.server_findings(settings, place)),
        ]
        self._each("Tracking", *(rank_0 if place.rank == 0 else []))
        self.job = slurm.read_job(place)
        jobs: list[Named] = [
            ("Slurm", slurm.program_findings),
            ("controller", lambda: slurm.controller_findings(self.job)),
            ("job", lambda: slurm.job_findings(self.job, place)),
        ]
        self._each("Slurm", *(jobs if place.rank == 0 else []))

    # --- the run ---------------------------------------------------------------------------------------------

    def run(self, seconds: float, *, allow_pipe: bool) -> None:
        """Look at the recipe's data and run, and play rounds of it."""
        config, ranks = self.config, self.ranks
        data = partial(recipe.data_findings, config, ranks.rank, ranks.world, allow_pipe=allow_pipe)
        batch = partial(recipe.batch_findings, config, ranks.world)
        self._each("Recipe", ("data", data), ("batch", batch), seconds=FETCH_SECONDS)
        if self.broken or ranks.from_main(self.page.fails("Ranks", "Recipe")):
            return  # rounds would say the same less clearly, or hang
        if ranks.main:
            order = partial(recipe.fingerprint, config, allow_pipe=allow_pipe)
            self.page.section("Recipe", examined("run", lambda: recipe.standing_findings(config, order())))
        if self.folder is None:
            return
        rounds = Rounds(config, self.folder, ranks, self.page, self.job, seconds, allow_pipe, self.reductions)
        try:
            rounds.play()
        except Exception as error:
            self.give_up("Rounds", "rounds", error)
