"""Which pairs of nodes are joined: python links.py [EPOCHS]."""

import sys

import torch
from torch_geometric.nn import GCN

import nodebits
from nodebits.models import PairModel

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
config = nodebits.FitConfig(epochs=EPOCHS, progress=False)

torch.manual_seed(0)
data = nodebits.load_dataset("digits").data
# A tenth of the links is hidden to validate and a fifth to test; pairs without a link are drawn.
problem = nodebits.train.as_problem(data, "link", metric="roc_auc")
model = PairModel(GCN(data.num_features, 64, 2, 32), channels=32)
nodebits.fit(model, problem, config)

prepared = nodebits.prepare(model, nodebits.DegreeQuantConfig(bits=4))
teacher = nodebits.train.predict_logits(model, problem)
nodebits.fit(prepared, problem, config, teacher_logits=teacher)
packed = nodebits.convert(prepared)
for name, one in (("float", model), ("4 bits", packed)):
    print(f"{name:7} ROC-AUC {nodebits.train.evaluate(one, problem).value:.3f}")

pairs = torch.tensor([[0, 1, 2], [10, 11, 12]])
print("scores", packed.predict(data.x, data.edge_index, pairs).flatten().tolist())
