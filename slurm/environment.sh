# shellcheck shell=bash
# The programs that a job of this folder runs, found once for all of its scripts. Set these before sbatch:
#
#   GANDIST_VENV       virtual environment; .venv of the checkout when left out and there
#   GANDIST_MODULES    environment modules to load, such as "cuda/12.8 nccl"
#   GANDIST_CONTAINER  a command that runs another one in a container, such as "apptainer exec --nv gandist.sif";
#                      checkout, data and run folder must be visible in it under the same paths

say() { printf '[%(%F %T)T] slurm %s: %s\n' -1 "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" "$*"; }

refuse() {
  say "$*" >&2
  exit 2
}

cd "$SLURM_SUBMIT_DIR" || refuse "the folder that sbatch was called in, $SLURM_SUBMIT_DIR, is not on this node"

if [[ -n ${GANDIST_MODULES:-} ]]; then
  set +u # site files read variables that nobody has set
  # shellcheck disable=SC1091
  type module &>/dev/null || source /etc/profile
  # shellcheck disable=SC2086  # a list of names
  module load $GANDIST_MODULES || refuse "GANDIST_MODULES='$GANDIST_MODULES' cannot be loaded"
  set -u
fi

if [[ -n ${GANDIST_VENV:-} ]]; then
  [[ -x $GANDIST_VENV/bin/python ]] || refuse "GANDIST_VENV='$GANDIST_VENV' is not a virtual environment"
fi
venv=${GANDIST_VENV:-.venv}
[[ -d $venv/bin ]] && PATH="$(cd -- "$venv/bin" && pwd):$PATH"

# shellcheck disable=SC2034 # read by the scripts
read -ra container <<<"${GANDIST_CONTAINER:-}" # in front of every program of gandist; empty without a container
