"""Which reward-model method should I use? All of them from one base, on one data set, tuned alike.

    python -m experiments.compare --methods bt,label_smoothed,grm_sft,ensemble
    python -m experiments.compare --choices runs/compare/choices.json --run-dir runs/confirmed
    python -m experiments.compare --of rankings
    python -m experiments.compare --base DIR --data SOURCE --eval SOURCE SOURCE
    python -m experiments.compare --report docs/compare/{screen,confirmation,rankings,real} \\
        --page docs/results.md --methods-page docs/methods.md

Every method starts from the same base with the same head and sees the same comparisons in the same
order. First each is tuned on `val`, whose labels are as noisy as those of training, by the same
number of trials: the baseline, Bradley-Terry, by its learning rate, the others by their strength at
that rate, or by their own rate where they have no strength. Then the chosen trials are measured on
seeds of their own data, and every method's gain over the baseline is tested over seeds. With
`--choices` nothing is tuned: what another run chose is measured on seeds that no choice has seen,
at every condition, and a method that costs more than the baseline is also given no more training
FLOPs than that.

With a base of one's own LoRA trains, and the head (`--train`); `--rates` are tried; a base without
a chat template takes `--chat-template FILE`. Before anything is trained, the data is read and
tokenised and the jobs are counted. No model is kept: RUN/report.html has, beside the tables, the
command that trains and keeps one by each method.

Methods are those of jaxrm/methods. To have one's own among them, write a file like this one:

    from jaxrm.methods.method import Method
    from jaxrm.study import comparing

    def methods() -> dict[str, Method]:
        return {"my_method": MY_METHOD}

    if __name__ == "__main__":
        comparing.run(methods, __doc__)

It compares `my_method` with the baseline; `--methods my_method,bsr` adds one of the library's.

Every training run is a file of RUN/jobs; the same command goes on where it was stopped, and
`--report` writes one page of what several runs left: their records.jsonl and choices.json.
"""

from __future__ import annotations

from jaxrm.study import comparing

if __name__ == "__main__":
    comparing.run(comparing.library, __doc__)
