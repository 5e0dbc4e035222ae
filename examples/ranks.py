"""Training in several processes on samples: torchrun --nproc-per-node 2 ranks.py [EPOCHS].

Every process samples around nodes of its own; gradients and ranges are those of all of them, so all
end with the same model. Without torchrun the script runs in one process.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE

import nodebits
from nodebits.train import NeighborSampler, SampledProblem

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10

rank, world = 0, 1
if "RANK" in os.environ:  # torchrun says who there is
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()

data = nodebits.load_dataset("digits").data
sampler = NeighborSampler(data, [10, 10])


def loader(mask: torch.Tensor) -> NeighborLoader:
    """Batches around the nodes of this process."""
    nodes = mask.nonzero().view(-1)[rank::world]
    return NeighborLoader(
        data, [10, 10], nodes, batch_size=64, shuffle=True, neighbor_sampler=sampler
    )


torch.manual_seed(0)
prepared = nodebits.prepare(GraphSAGE(64, 32, 2, 10), nodebits.UniformConfig(bits=4))
model = DistributedDataParallel(prepared) if world > 1 else prepared
problem = SampledProblem(data, loader(data.train_mask), evaluation={"val": loader(data.val_mask)})
result = nodebits.fit(model, problem, nodebits.FitConfig(epochs=EPOCHS, progress=False))
packed = nodebits.convert(prepared)
packed.save(f"model-{rank}.safetensors")  # the same bytes in each process
if rank == 0:
    print(f"validation {result.val.value:.3f}, epoch {result.best_epoch}")
if world > 1:
    dist.destroy_process_group()
