"""Train from Python: the same run as `ddpgd train`, on one rank or under mpirun. Every rank gets the summary.

python examples/train_from_python.py
mpirun -n 2 python examples/train_from_python.py
"""

import ddpgd

summary = ddpgd.train(ddpgd.Config(data="synthetic", hidden=(64,), epochs=3, quiet=True))
print(f"{summary['world_size']} ranks: {100 * summary['test_accuracy']:.1f} %, params {summary['params_sha256'][:16]}")
