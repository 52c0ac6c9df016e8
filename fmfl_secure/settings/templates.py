"""The commented settings files that `init` writes.

`fmfl-secure init` writes `federation_toml` (`cli.new_settings`), and `parties.workspace` each
party's own file. Whatever `left_open` still finds in a file, nobody has chosen.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from fmfl_secure.settings.choices import choices_of, still_open
from fmfl_secure.settings.task_templates import task_template
from fmfl_secure.settings.written import toml_of


def site_toml(name: str, min_sites: int, data: str, *, public: bool = False) -> str:
    """A site's own file.

    Args:
        name: The site.
        min_sites: Smallest cohort it takes part in.
        data: Path of its training file, relative to the site's folder or absolute.
        public: Declare the data public.
    """
    visibility = '"public" ' if public else '"private"'
    return f"""\
# {name}: this site's own file. It never leaves the site, and no federation can override it.

[data]
path = {toml_of(data)}   # relative to this file; docs/data.md
# name = "letters-2026"           # your own name for this data set, noted in the ledger
visibility = {visibility}           # "public" only if anyone may see every row
# holdout = "apart.csv"           # units that are never trained on, and may be asked
# holdout_key = "holdout.key"     # the secret by which evaluation.holdout sets units apart

[budget]
# The people in the data, by a name of your own. The ledger belongs to them, not to the file:
# every data set about the same people must name the same population and ledger.
population = "{name}"
ledger = "ledger.sqlite"         # or "postgresql://USER@HOST/DATABASE?schema=NAME"
# anchors = "/media/officer"     # the data-protection officer's anchors, kept outside the backup
# reservation_days = 30          # a run holds its budget so long; what has not begun comes back

[time]
round_s = 0                      # with constant_time, seconds from a round's begin to the answer:
                                 # choose them longer than reading the data takes

# What this site allows. A run that asks for more is refused before data are read; others hear a
# code such as policy.rounds and nothing else. What is left out is not limited.
[policy]
min_sites = {min_sites}                    # smallest cohort this site is summed with, at least 3
# min_share = 0.75                 # and what share of all sites; two thirds where this is out
non_private = "refuse"           # runs without noise on private data; "exhaust": end the ledger
# expires = 2027-12-31             # last day, UTC, on which anything is admitted
# max_rounds = 50                  # most rounds a run may plan
# max_epsilon_per_run = 8.0        # most that one run may cost, repeats included,
# max_delta_per_run = 1e-5         # and the largest delta it may state that at
# max_insider_epsilon_per_run = 20.0  # with noise in shares, most that all other sites may learn
# min_colluding_sites = 2          # with noise in shares, so many sites have to be distrusted
# max_epsilon_per_dataset = 6.0    # most that all runs on data.name may cost together, ever,
# max_delta_per_dataset = 1e-5     # at this delta; the ledger keeps count
queries = "statistics"           # what may be asked of the data, charged like training: "none";
                                 # "evaluation", how a model does on them; or what is in them too
# max_epsilon_per_answer = 0.5     # most that a run's answers may cost together
# max_answers_per_run = 10         # most answers a run may give,
# max_answers_per_year = 20        # and all runs together in 365 days
# norm_check = "accept"            # runs that tell 64 numbers of each tensor of an update, so that
                                 # its size can be checked; "require": no others
# base_models = ["sha256:..."]     # by digest, which fmfl-secure plan prints
# tasks = ["text-classification"]  # kinds of task
# adapters = ["ffa-lora", "lora"]  # kinds of adapter
# extensions = ["acme-kinds:shift"]  # other packages' code that may run here; none otherwise
# architectures = "gated"          # base models that no table lists, if the gate passes them
# suites = ["ckks-collective"]     # encryption suites
# parameter_sets = ["ckks-collective-4096-60-aes"]  # encryption parameters, which plan prints
"""


def custodian_toml(name: str, min_sites: int) -> str:
    """A custodian's own file.

    Args:
        name: The custodian.
        min_sites: Smallest cohort whose sum it lets open.
    """
    return f"""\
# {name}: this custodian's own file. No sum opens without its word.

[policy]
min_sites = {min_sites}     # smallest cohort whose sum it lets open, at least 3
# min_share = 0.75  # and what share of all sites; two thirds where this is out
# last_round = 10   # let no round after this one open
"""


# What `init --model` writes in place of a template's: what follows from the base model alone.
OF_MODEL: Final = (
    "model.base", "model.digest", "model.dtype", "model.max_length", "task.head", "task.chat",
    "adapter.last_layers", "adapter.target_modules", "training.physical_batch_size",
)  # fmt: skip

_OPEN: Final = "# Nobody has chosen yet, so nothing is granted: "


def federation_toml(
    name: str,
    sites: int,
    task: str = "text-classification",
    values: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """A federation's public settings, with every choice explained.

    Args:
        name: The federation.
        sites: How many.
        task: Kind of task.
        values: In place of a template's, by section and key: of those in `OF_MODEL`, and what
            people chose (`settings.choices`). What they left open is said at the beginning.

    Raises:
        UnknownKind: There is no template for such a task.
    """
    section, lines = "", []
    written = _template(name, sites, task).splitlines()
    if any(each.key in values for each in choices_of(task)):
        written[1:1] = _said_of_choices(still_open(task, values))
    for line in written:
        section = line.strip("[]") if line.startswith("[") else section
        key = f"{section}.{line.partition(' = ')[0]}"
        if key == "model.max_length" and values.get("model.digest"):
            lines.append(f"digest = {toml_of(values['model.digest'])}")
        lines.append(_with_value(line, values[key]) if key in values else line)
    return "\n".join(lines) + "\n"


def _said_of_choices(missing: tuple[str, ...]) -> list[str]:
    lines = ["# Written by init from what was chosen."]
    return [*lines, f"{_OPEN}{', '.join(missing)}"] if missing else lines


def left_open(text: str) -> tuple[str, ...]:
    """Keys that settings say nobody has chosen yet, as `init` wrote them; else none."""
    found = re.search(rf"^{_OPEN}(.+)$", text, re.MULTILINE)
    return tuple(found[1].split(", ")) if found else ()


def _with_value(line: str, value: Any) -> str:
    """A line of a setting with another value; its comment stays where it is."""
    (there,) = tomllib.loads(line).values()
    if there == (list(value) if isinstance(value, tuple) else value):
        return line
    key, _, rest = line.partition(" = ")
    old, mark, comment = rest.partition("#")
    written = f"{key} = {toml_of(value)}"
    width = len(key) + 3 + len(old) if mark else 0
    return f"{written:<{width}}{'' if len(written) < width or not mark else '  '}{mark}{comment}"


def _template(name: str, sites: int, task: str) -> str:
    of_task = task_template(task)
    entries = "\n".join(
        f'\n[[sites]]\nname = "site-{number}"\npopulation = 500' for number in range(1, sites + 1)
    )
    return f"""\
# The federation's settings: public, and the same for every party.

[federation]
name = "{name}"
rounds = 40              # sums released; each is one step where steps are the server's
min_sites = 3            # smallest cohort whose sum may be opened
min_share = 0.6667       # and what share of all sites it has to be; the larger of the two holds
# vanished_sites = 1     # so many may vanish once they have uploaded; fewer may then collude
# norm_check = true      # sites show that no update is larger than an honest one; policies accept
rehearsals = "after-failure"  # where nobody knows why one failed: on public numbers, by name
seed = 1                 # of the adapter's initial values; never of sampling or noise
weights = "equal"        # or "population": 1, 1/2, 1/4 or 1/8, by the declared populations

[model]
{of_task.model}
max_length = 128         # tokens kept of a text
dtype = "float32"        # or "bfloat16": frozen weights in half the memory; "blocks": an eighth

{of_task.section(task)}

[adapter]
kind = "ffa-lora"        # docs/models.md has them all, and what goes with which model
rank = 8
alpha = 16
rank_stabilised = false  # true scales by alpha / sqrt(rank)
virtual_tokens = 16      # of "prompt" and "prefix"
last_layers = 1          # adapt the last layer only; layers below run once a record. 0 for all
target_modules = {of_task.target_modules}
# layer_groups = 2       # of the LoRA family: a round trains every second layer, in turns
personal = []            # ["head", "lora_B"]: parts that every site trains and keeps for itself
initial = ""             # go on from a finished run's folder, or an exported adapter's

[privacy]
noise = "local"          # noise of each site's own; "distributed": in shares, one step a round,
                         # docs/distributed-noise.md; "none" needs public data
epsilon = 8.0            # what the whole run may cost each site, repeats included
rationale = ""           # why this epsilon and no other: reports have it
decided_by = ""          # who decided that
# review_on = 2027-05-12 # when somebody looks at it again
delta = 1e-5             # at most 1 / (10 x the largest population)
sample_rate = 0.2        # chance of a unit to take part in a step
steps_per_round = 1      # more only with training.steps_at = "site"
max_grad_norm = 1.0
repeats = 1              # rounds that may be trained again after a crash, paid in advance
accounting = "filter"    # or "exact": a tenth less noise, of a grant for this run and no other
colluding_sites = 1      # "distributed": so many may give their noise away before epsilon is lost
insider_epsilon = 0.0    # "distributed": what all other sites together may learn; plan says it
max_records_per_unit = 8 # a person's records a round trains on, drawn at random; 0 for all
constant_time = true     # where the unit is a column: a round's work and time do not tell who is in
length_shares = []       # [[64, 0.2]]: a fifth at most of the records need more than 64 tokens

[training]
steps_at = "server"      # sites release noised gradients, the optimizer runs on their sum. "site":
                         # few, large uploads, and a worse model for the same epsilon
optimizer = "adam"
learning_rate = 1e-3     # of the adapter
head_learning_rate = 0.1
# With steps_at = "site":
proximal = 0.0           # FedProx: pulls a site's steps back to where the round began
server_optimizer = "average"  # or "momentum", "adam", "yogi", on the released mean update
server_learning_rate = 1.0    # of the server's optimizer
physical_batch_size = 64 # records in memory at once; cannot touch privacy
checkpointing = false    # true computes activations twice instead of keeping them
device = "auto"          # or "cpu", "cuda"

[aggregation]
suite = "ckks-collective"
bits = 16                # a value is quantised to
custodians = []          # parties besides, such as ["board"], who must all agree to every sum

[evaluation]
data = ""                # a held-out file that figures may be published on; or "sites", for noised
                         # figures on what the sites hold, docs/private-answers.md
visibility = "private"   # must be "public" of a file
every = 1                # rounds from one evaluation to the next
holdout = 0.0            # share of its units that each site sets apart and never trains on, by a
                         # secret of its own, where the unit is a column
epsilon = 0.0            # data = "sites": what a run's answers may cost every unit, beside training
insider_epsilon = 0.0    # the same against all other sites together, with "distributed" noise
measures = []            # what is asked of them in one answer; the task's first where empty
loss_bound = 5.0         # where a record's loss is cut
count_bound = 5.0        # length that a unit's counts of entities are cut to
subgroup_column = ""     # a public column, for the measure "subgroups", and
subgroups = []           # its values

# Where this is there, sites are asked as well: one noised sum an answer, charged like training.
# [question]
# what = ["units", "labels"]  # see docs/private-answers.md
# epsilon = 0.3          # what all answers of a run may cost together, beside training
# every = 0              # rounds of training from one answer to the next; 0 asks and never trains
# shares = []            # what each question may cost of it, such as [0.3, 0.7]; empty: the same
# insider_epsilon = 0.0  # as in [privacy], of the answers
# repeats = 0            # answers that may be computed again after a crash, paid for in advance
# adapter = ""           # digest of what is asked about, if it is not what training starts from
# candidates = []        # for a choice: names of the adapters that are joined in it
# lengths = []           # for "lengths": tokens at which its classes end

# One entry a site. The population is declared and rounded: rates and denominators use it, the
# true count is never used.{entries}
"""
