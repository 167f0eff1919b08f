"""What the command line says about itself."""

HELP = """\
usage: jepakit VERB [key=value ...] [--plugin FILE]

  train      train: jepakit train recipe=demo
  slurm      a batch script that trains on a cluster: jepakit slurm recipe=... nodes=2 gpus=8
  plan       what training will need, before it begins: jepakit plan recipe=ijepa_vith14 gpus=16 gpu=a100
  eval       score a run's encoder: jepakit eval run=runs/... protocol=linear
  compare    scores of several runs beside the paper's: jepakit compare runs/a runs/b
  health     is a run learning, is it collapsing, and why: jepakit health run=runs/...
  bench      where the time of a step goes, and beside another one's: jepakit bench recipe=demo against=demo_video
  features   write a folder's features: jepakit features run=runs/... data.root=/images out=features.safetensors
  inspect    what a file of weights is: jepakit inspect FILE
  import     someone else's weights as jepakit's: jepakit import FILE out=vith14.safetensors
  export     a run's weights for others: jepakit export run=runs/... --to hf out=FOLDER
  report     all there is to say of a run, on one page: jepakit report run=runs/...
  show       look before you train: jepakit show config recipe=demo, jepakit show masks recipe=demo
  plugins    what is installed, and what failed to load: jepakit plugins --verbose
  data       find files that cannot be read: jepakit data check data.root=/images
  new        write a plugin's first files: jepakit new masker checkerboard
  doctor     versions, devices, threads, disk
  demo       I-JEPA in minutes on built-in pictures, with its scores; jepakit demo video: V-JEPA on built-in clips

  --plugin FILE   load a plugin from a Python file (may be repeated)
  --trust         go on with run folders that are neither yours nor of your groups
  --version       print the version

jepakit VERB --help says more. Tab completion: eval "$(jepakit -sc install=bash)"
"""

VERB_HELP = {
    "train": """\
usage: jepakit train [recipe=NAME] [group=option ...] [key=value ...] [run=FOLDER | resume=auto] [flags]

  recipe=NAME or recipe=path/mine.yaml     what to start from
  encoder=vit_huge masker=multiblock       choose an option of a group; anti_collapse=[a,b] composes several
  optim.lr=5e-4 data.root=/images          set a value (jepakit show config recipe=NAME lists them all)
  run=FOLDER                               continue that run; with a recipe: where the new run is kept
  resume=auto                              continue the newest unfinished run with the same configuration
  -m, --multirun                           a sweep: jepakit train -m recipe=a,b optim.lr=1e-3,5e-4
  --cfg job, --info, --hydra-help          print the configuration, Hydra's state, Hydra's help
  --config-dir DIR                         options and recipes of your own, DIR/recipe/mine.yaml
  trainer.devices=8                        in so many processes, one a GPU; under torchrun or srun as many as they start
""",
    "slurm": """\
usage: jepakit slurm recipe=NAME nodes=N gpus=N [time=24:00:00] [partition=P] [account=A] [cpus=N] [grace=180]
                     [env=COMMAND] [out=FILE.sbatch] [submit=true] [key=value ...]

  nodes=N gpus=N    machines, and GPUs of each: one process a GPU; gpus=0: one a machine
  cpus=N            cores of each process
  grace=SECONDS     how long before its end a job saves, and goes back into the queue
  env=COMMAND       what finds jepakit on the machines: env='source /path/.venv/bin/activate'
  run=FOLDER        where the run is kept; without: runs/NAME-JOB
  submit=true       hand the script to sbatch
  key=value         settings, as for jepakit train
""",
    "plan": """\
usage: jepakit plan [recipe=NAME] [gpus=N] [gpu=NAME] [memory=GIB] [mfu=SHARE] [per_machine=N] [network=GB/S]
                    [images=N] [strategy=auto|ddp|fsdp2|hsdp] [key=value ...] [out=FILE.json]

  recipe=, key=value   what would be trained; its data need not be there
  gpus=16 per_machine=8 gpu=a100 memory=80   processes, those of a machine, the device of each, its memory in GiB
  mfu=0.4 network=25   share of the device's peak that is reached, GB/s that leave a machine for each device
  images=1281167       samples of an epoch, where the recipe does not say how many steps that is
  out=FILE.json        the same for programs, in bytes, operations and seconds

  Parameters, memory of each process by item, tokens, operations, what is sent, the size of a checkpoint, days. One step
  is counted operation by operation, on tensors that have shapes and no content.
""",
    "eval": """\
usage: jepakit eval run=FOLDER [protocol=NAME[,NAME ...]] [weights=target|online] [data.KEY=VALUE ...]
                    [fit_root=FOLDER] [label=NAME] [limit=N] [clips=N] [views=N] [KEY=VALUE ...]

  protocol=NAME        what is scored, and how: a versioned file, or the path of one of your own; all: knn and ridge
  KEY=VALUE            settings of the protocol, in place of its file's: k=5, lrs=[1e-3,3e-4], epochs=10
  data.root=/images    the images that are scored
  fit_root=/images     the images that neighbours are looked up in, or that the probe learns from
  clips=8 views=3      so many clips of each video, evenly spread over it, and views along the longer side
  cache=GIB memory=GIB features that are kept in the run's folder, and those that are held at once
""",
    "compare": """\
usage: jepakit compare RUN [RUN ...] [published=RECIPE] [out=FILE.md|FILE.csv]

  RUN                  run folders, or folders of sweeps
  published=RECIPE     whose published numbers stand beside them; without: those of each run's own recipe
  out=FILE             write the table as Markdown or CSV
""",
    "health": """\
usage: jepakit health run=FOLDER [out=FILE.json] [picture=false]

  run=FOLDER       a run, finished or not: the verdict, its evidence, its likely cause, what to type instead, and
                   health.png among its pictures
  out=FILE.json    the same for programs
  picture=false    draw nothing, and be quick

  verdicts: healthy, watch (exit code 0); not learning, collapsing, collapsed (exit code 1)
  while training: health.on_collapse=warn|stop|rollback health.factor=0.5 health.rollbacks=3; a run that was stopped
  ends with exit code 4
""",
    "bench": """\
usage: jepakit bench [recipe=NAME] [key=value ...] [against=OTHER ...] [steps=N] [repeats=N] [out=FILE.json]
                     [--profile FILE.json] [--roofline]
       jepakit bench sweep=KEY=VALUE,VALUE,... [recipe=NAME] [key=value ...] [plot=FILE.svg] [out=FILE.json]
       jepakit bench data data.root=FOLDER [data=SOURCE] [key=value ...] [steps=N] [repeats=N] [out=FILE.json]

  recipe=, key=value   whose step is timed, in one process, as jepakit train would take it; run=FOLDER: that run's
  against=OTHER        timed beside it, in turns: another recipe, a run folder, settings in place of the first one's
                       (against="optim.name=lars encoder=vit_small"), or a Python file with a function
                       prepare(config, device, part) that returns step(number) -> samples
  steps=10 repeats=9   steps of a turn, and turns
  clock=cpu            CPU time of the process in place of the wall's: where others want the machine too
  fixed=true           the same batches again and again: what computing alone takes
  out=FILE.json        all figures
  --profile FILE.json  a trace of a few steps, for chrome://tracing or ui.perfetto.dev
  --roofline           of each part operations, bytes, and how near to the machine's limits it comes: products, memory,
                       calls, as they are measured then

  sweep=KEY=ONE,OTHER  time and memory of a sample against the values of a setting, in turns; several sweeps may be
                       given: sweep=data.batch_size=8,16,32 sweep=encoder=vit_tiny,vit_small
  plot=FILE.svg        draws them (.svg, .png, .pdf)

  data                 how many pictures or clips a second one core reads, by each decoder and by plain Pillow

  Medians and quartiles of all steps by part: data is waiting for batches, rest what belongs to no part.
""",
    "features": """\
usage: jepakit features run=FOLDER|file=FILE data.root=FOLDER out=FILE.safetensors [weights=target|online] [pool=none]
                        [size=N] [limit=N] [data.KEY=VALUE ...]
""",
    "inspect": """\
usage: jepakit inspect FILE [recipe=NAME] [heads=N] [size=N] [frames=N] [--verbose]

  FILE           a file or folder with weights: Meta's .pth.tar, Hugging Face, timm, safetensors, a run
  recipe=NAME    compare names and shapes with this recipe's model; exit code 1 where it is another
  --verbose      list every tensor
""",
    "import": "usage: jepakit import FILE out=FILE.safetensors [heads=N] [predictor_heads=N] [size=N] [frames=N]\n",
    "export": """\
usage: jepakit export run=FOLDER|FILE --to hf|timm|meta|vjepa|vjepa2|hf_vjepa2|safetensors out=PATH
                      [weights=target|online] [size=N] [frames=N]

  weights=target     the teacher (the default) or what learns, where the format has room for one
  companion=false    leave out the file beside it, with what the format has no room for
""",
    "report": """\
usage: jepakit report run=FOLDER [out=FILE.html] [draw=false]

  run=FOLDER    finished or not; of what cannot be drawn yet the page says why
  out=FILE      where the page goes; without: report.html in the run's folder
  draw=false    leave the pictures as they are, and be quick: the page with the scores of now
""",
    "show": """\
usage: jepakit show config|masks|views [recipe=NAME] [key=value ...]
       jepakit show masks|views|curves|flow|predictions run=FOLDER
       jepakit show masks --audit [audit.batches=N] [recipe=NAME | run=FOLDER]

  config    every setting, its value, and who gave it
  masks     what the model sees, as a picture, of clips also as one that moves; out=FILE says where
  views     the views of a sample, and where in it they were cut; out=FILE says where
  --audit   how often every token is context and target, which are starved, what the batch cut takes; no data needed
  curves    loss, scores and health of a run; out=FILE says where
  flow      pairs of frames, how they move, and how a run says they do
  predictions  what a run's predictor says of hidden patches: nearest patches of other pictures, and a decoder's;
               samples=N pictures, out=FILE.png says where
""",
    "plugins": """\
usage: jepakit plugins [--verbose | --matrix [KIND=NAME,NAME ...]]

  --verbose    all that each brings, and why one failed
  --matrix     what goes with what, and why not: every combination is built at tiny size, or with masker=tubes,random
               data=clips those that have these; takes about half a minute
""",
    "data": "usage: jepakit data check data.root=FOLDER [data=SOURCE] [data.KEY=VALUE ...]\n",
    "new": "usage: jepakit new KIND NAME [FOLDER]\n\n  KIND    {kinds}\n",
    "doctor": "usage: jepakit doctor\n",
    "demo": """\
usage: jepakit demo [video] [key=value ...]

  video        V-JEPA on clips that move, scored by which way a thing goes; without: I-JEPA on pictures
  key=value    settings of recipe=demo or recipe=demo_video
""",
}
