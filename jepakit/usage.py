"""What the command line says about itself."""

HELP = """\
usage: jepakit VERB [key=value ...] [--plugin FILE]

  train      train: jepakit train recipe=demo
  eval       score a run's encoder: jepakit eval run=runs/... protocol=linear
  compare    scores of several runs beside the paper's: jepakit compare runs/a runs/b
  health     is a run learning, is it collapsing, and why: jepakit health run=runs/...
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
