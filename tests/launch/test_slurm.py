"""The batch script: what is refused before it is written, what it says, and what it does on a cluster that is made of
three shell scripts; torchrun goes on where it was stopped."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.launch.commands import FOREVER, TINY, Command, kill_marked, lines, until
from tests.train import tiny

BIN = {
    # As many tasks as the job has; a signal is handed on to each. The exit code is the greatest.
    "srun": """\
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NODELIST=here "$@" &
    tasks+=($!)
done
trap 'kill -s USR1 "${tasks[@]}"; again=1' USR1
for task in "${tasks[@]}"; do
    while again=; wait "$task"; code=$?; [[ $again ]]; do :; done
    worst=$((code > worst ? code : worst))
done
exit $worst
""",
    "scontrol": '[[ $1 == show ]] && echo 127.0.0.1 || echo "$@" >> asked\n',
    "sbatch": 'echo "Submitted batch job 7"\n',
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and Slurm's commands on the path."""
    (tmp_path / "bin").mkdir()
    for name, text in BIN.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_job_whose_time_is_up_saves_and_requeues_itself_and_torchrun_goes_on(cluster, begin, cli):
    assert cli("slurm", *TINY, FOREVER, "gpus=2", "out=job").code == 0
    folder = cluster / "runs" / "tiny-77"
    job = Command(folder, ["bash", "job"], SLURM_JOB_ID="77", SLURM_NTASKS="2")
    try:
        until(lambda: lines(folder) >= 3 or job.process.poll() is not None)
        assert job.end(signal.SIGUSR1) == 130, job.said()
    finally:
        kill_marked(job.mark)
    assert (cluster / "asked").read_text() == "requeue 77\n"
    steps = len(tiny.lines(folder))
    assert job.said().count(f"stopped and saved at step {steps}") == 1 and "rror" not in job.said()

    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python")
    running = begin(folder.relative_to(cluster), *TINY, f"trainer.steps={steps + 2}", before=torchrun)
    assert running.end() == 0, running.said()
    assert running.said().count(f"resumed at step {steps}") == 1 and "16 samples a step" in running.said()
    assert len(tiny.lines(folder)) == steps + 2 and (folder / "finished").exists()
    assert "devices: 2\n" in (folder / "config.yaml").read_text()


def test_what_the_script_says(cluster, cli):
    given = ("nodes=2", "gpus=8", "cpus=6", "time=1-12:00", "partition=long", "account=lab", "grace=300")
    said = cli(
        "slurm", "recipe=demo", "optim.lr=1e-3", *given, "env=module load cuda", 'run=it\'s "$HOME" here', "submit=true"
    )
    assert (said.code, said.out) == (0, "jepakit: wrote demo.sbatch\njepakit: Submitted batch job 7\n"), said.err
    text = (cluster / "demo.sbatch").read_text()
    told = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")}
    assert told == {
        *("job-name=demo", "nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=6", "time=1-12:00"),
        *("partition=long", "account=lab", "signal=B:USR1@300", "requeue", "open-mode=append", "output=demo-%j.out"),
    }
    assert "\nmodule load cuda\nexport SRUN_CPUS_PER_TASK=6\n" in text
    assert """ jepakit train recipe=demo optim.lr=1e-3 run="${RUN:-it's \\"\\$HOME\\" here}" &\n""" in text


REFUSED = {
    "optim.l=3": "unknown key 'optim.l' (did you mean 'lr'?)",
    "nodes=0": "nodes=0 is no number of at least 1",
    "gpus=many": "gpus=many is no number of at least 0",
    "time=a day": "time=a day is not what Slurm understands",
    "partition=x\n#SBATCH --uid=0": "is not what Slurm understands",
    "submit=yes": "submit=yes is no choice: write submit=true",
    "trainer.devices=3": "trainer.devices=3, but nodes x gpus is 1: leave it out",
    "trainer.accumulate=null": "trainer.accumulate=null makes up trainer.global_batch",
    "out=mine": "out=mine: the file is there already, and jepakit did not write it",
    "run=nowhere": "",
    "--multirun": "a sweep on Slurm is: jepakit train -m hydra/launcher=submitit_slurm",
}


def test_what_is_refused(cluster, cli):
    (cluster / "mine").write_text("precious")
    for given, line in REFUSED.items():
        said = cli("slurm", "recipe=demo", given)
        assert (said.code, line in said.err) == (2 if line else 0, True), (given, said.err)
    assert "there is no run" in cli("slurm", "run=nowhere").err
    assert (cluster / "mine").read_text() == "precious"


def test_no_sbatch_here(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = cli("slurm", "recipe=demo", "submit=true")
    line = "submit=true: there is no sbatch here; on a machine of the cluster: sbatch demo.sbatch"
    assert (said.code, said.err) == (2, f"jepakit: error: {line}\n")
