"""The narrow Tridos on drone-ir, trained as the wide one is."""

_base_ = "./tridos_drone_ir.py"

model = dict(type="MoteTridosNano")
