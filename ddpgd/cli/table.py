"""The commands: what each is for, and what it needs of the process that runs it. Imports nothing large."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command.

    Attributes:
        text: What it does.
        example: A command line.
        module: The module that adds its flags, and names its options of the configuration in WORK_OPTIONS, and in DEFAULTS
            those that begin with another value. It is imported for its command alone: every rank of a run would wait for the
            others. Empty: `arguments` has its flags.
        needs_ranks: True if all ranks run it. The others must not start MPI, which fails in a process that a rank starts.
        may_use_gpu: True if it may compute on a GPU, which is chosen before MPI starts.
        only_with: The flag without which it needs neither ranks nor a GPU.
        is_stoppable: True if it takes a signal as a request for checkpoints.
    """

    text: str
    example: str
    module: str = ""
    needs_ranks: bool = False
    may_use_gpu: bool = False
    only_with: str = ""
    is_stoppable: bool = False


TABLE = {
    "train": Command(
        "train a network, on all ranks that mpirun started",
        "mpirun -n 2 ddpgd train --hidden 512,512 --optimizer adam --lr 0.001 --epochs 5",
        needs_ranks=True,
        may_use_gpu=True,
        is_stoppable=True,
    ),
    "evaluate": Command(
        "compute test loss and accuracy of a checkpoint, on all ranks that mpirun started",
        "ddpgd evaluate runs/first/checkpoints/latest",
        needs_ranks=True,
    ),
    "predict": Command(
        "say which digit, or class of its data, a checkpoint sees in each picture",
        "ddpgd predict runs/first/checkpoints/latest seven.png",
    ),
    "data": Command(
        "fetch, verify and report the data, how --sync federated divides them among clients, and what --augment makes of them",
        "ddpgd data --partition shards:2 --clients 100 --out partition.png",
        needs_ranks=True,
    ),
    "compare": Command(
        "find the first step and layer at which two runs differ",
        "ddpgd compare runs/first runs/second",
    ),
    "doctor": Command(
        "check the ranks that mpirun started; each finding says what to type",
        "mpirun -n 2 ddpgd doctor",
        needs_ranks=True,
        may_use_gpu=True,
    ),
    "plot": Command(
        "draw loss, accuracy, learning rate, gradient norm and throughput of runs",
        "ddpgd plot runs/first runs/second --out runs.png",
    ),
    "hang": Command(
        "say where each rank of a run is that seems to hang, and which one the others wait for; the run goes on",
        "ddpgd hang runs/first",
        "ddpgd.watch.command",
    ),
    "quiz": Command(
        "check an answer to an exercise of docs/labs.md against the runs that it made",
        "ddpgd quiz 3 2",
        "ddpgd.results.quiz",
    ),
    "bisect": Command(
        "find the first step, phase, rank, layer and element at which two runs with --record, or the ranks of one, differ",
        "ddpgd bisect runs/first runs/second",
        "ddpgd.results.bisect",
    ),
    "runs": Command(
        "list runs: what they are, how far they came, what came of them",
        "ddpgd runs --sort accuracy",
        "ddpgd.results.listing",
    ),
    "report": Command(
        "write the results of a run as one page: curves, confusion matrix, mistakes, weights; or compare several runs",
        "ddpgd report runs/first",
        "ddpgd.results.report",
    ),
    "sweep": Command(
        "train a grid or random draws of options, one run on each group of ranks, and rank them",
        "mpirun -n 4 ddpgd sweep configs/sweeps/grid.toml --out sweep",
        "ddpgd.results.sweep.command",
        needs_ranks=True,
        may_use_gpu=True,
        is_stoppable=True,
    ),
    "plan": Command(
        "predict step time and efficiency on any number of ranks, and suggest improvements",
        "mpirun -n 2 ddpgd plan --measure --ranks 8,64,512 --ranks-per-node 8 --link 100Gbit",
        "ddpgd.scaling.plan",
        needs_ranks=True,
        may_use_gpu=True,
        only_with="--measure",
    ),
    "scaling": Command(
        "measure strong and weak scaling, and write a report",
        "ddpgd scaling --out scaling",
        "ddpgd.scaling.command",
    ),
    "profile": Command(
        "time the operations of a step on one rank, beside this machine's rate of matrix products",
        "ddpgd profile --hidden 512,512 --micro-batch 128",
        "ddpgd.scaling.profile",
    ),
    "descend": Command(
        "descend a function of a few params, and show the path",
        "ddpgd descend '(x-3)**2' --from 0 --lr 0.1 --steps 50",
        "ddpgd.lab.command",
        needs_ranks=True,
    ),
    "gradcheck": Command(
        "compare a network's gradients with finite differences, layer by layer",
        "ddpgd gradcheck --hidden 512,512 --activation tanh",
        "ddpgd.lab.gradcheck",
    ),
    "lr-find": Command(
        "suggest a learning rate, by a short run whose rate grows",
        "ddpgd lr-find --hidden 512,512 --out lr.png",
        "ddpgd.lab.lr_find",
        needs_ranks=True,
        may_use_gpu=True,
    ),
}
