"""Classes of nodes at 4 bits, from a float model to a file and back: python node.py [EPOCHS]."""

import sys

import torch
from torch_geometric.nn import GCN

import nodebits

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
config = nodebits.FitConfig(epochs=EPOCHS, progress=False)

torch.manual_seed(0)
dataset = nodebits.load_dataset("digits")
data = dataset.data
model = GCN(dataset.num_features, 64, 2, dataset.num_classes, dropout=0.5)
nodebits.fit(model, data, config)

# The quantized model starts from the float weights, and learns from the float model's outputs.
teacher = nodebits.train.predict_logits(model, data)
prepared = nodebits.prepare(model, nodebits.DegreeQuantConfig(bits=4))
nodebits.fit(prepared, data, config, teacher_logits=teacher)
packed = nodebits.convert(prepared)
packed.save("node.safetensors")

again = nodebits.load("node.safetensors")
assert again.predict(data.x, data.edge_index).equal(packed.predict(data.x, data.edge_index))
account = again.account(data.x, data.edge_index)
print(f"float   {nodebits.train.evaluate(model, data).value:.3f}")
print(f"4 bits  {nodebits.train.evaluate(again, data).value:.3f}")
print(f"activations {account.float_activation_bytes / account.activation_bytes:.1f} times smaller")
