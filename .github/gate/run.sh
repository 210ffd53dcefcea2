#!/usr/bin/env bash
# Run a matrix for the action: the report goes to $RUNNER_TEMP/sp-harness, its summary to the job's page, and the exit
# code to the outputs, as what is uploaded has to be uploaded first.
#
# Needs MATRIX, ARGUMENTS, RUNNER_TEMP, GITHUB_OUTPUT and GITHUB_STEP_SUMMARY.
set -uo pipefail

out="$RUNNER_TEMP/sp-harness"
summary="$out/summary.md"
mkdir -p "$out"
read -ra words <<< "$ARGUMENTS"

code=0
sp-harness run "$MATRIX" --out "$out" --summary "$summary" "${words[@]}" || code=$?

[ -s "$summary" ] || echo "The run of \`$MATRIX\` ended with exit code $code and left no report; see the log." > "$summary"
cat "$summary" >> "$GITHUB_STEP_SUMMARY"
{
  echo "exit-code=$code"
  echo "run=$(find "$out" -mindepth 2 -maxdepth 2 -name plan.json -printf '%h\n' | head -n 1)"
} >> "$GITHUB_OUTPUT"
