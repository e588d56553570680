"""Tridos on drone-ir with all classes as one, trained by mmengine's Runner:

    python -m detectors.mmdet_adapter train configs/mmdet/tridos_drone_ir.py --root DIR

A Python program in the style of mmdet's configurations.
"""

default_scope = "mmdet"

data_root = "../shared/data/drone-ir"

train_pipeline = [
    dict(type="MoteRandomCrop", size=(256, 256)),
    dict(type="MoteRandomFlip"),
    dict(type="PackMoteClip"),
]
test_pipeline = [dict(type="PackMoteClip")]

dataset = dict(type="MoteClips", layout="drone-ir", root=data_root, class_agnostic=True, store="")

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(split="train", pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    # evaluates every fifth frame
    dataset=dict(split="val", stride=5, pipeline=test_pipeline, **dataset),
)

model = dict(type="MoteTridos", num_classes=1)

train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=4000)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="CocoVideoMetric", metric="bbox", proposal_nums=(1, 10, 100))

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.01), clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type="CosineAnnealingLR", T_max=39500, eta_min=5e-6, by_epoch=False, begin=500, end=40000),
]

default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=4000, max_keep_ckpts=3),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type="EMAHook", momentum=0.001)]
randomness = dict(seed=0)
