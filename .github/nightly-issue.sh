#!/usr/bin/env bash
# Keep ONE issue about the nightly run: opened or updated while the run is red, closed when it is green again.
#
#   nightly-issue.sh red FILE     FILE's first line is the title, the rest the text (`sp-harness issue` writes it)
#   nightly-issue.sh green LINK
#
# Needs gh, and GH_TOKEN with `issues: write`; GH_REPO or the checkout says which repository.
set -euo pipefail

label="nightly-gpu"
state="$1"

# Of several open ones (somebody may have labelled another) the oldest is kept up to date.
number="$(gh issue list --label "$label" --state open --json number --jq 'map(.number) | min // empty')"

case "$state" in
  red)
    file="$2"
    title="$(head -n 1 "$file")"
    body="$(mktemp)"
    tail -n +3 "$file" > "$body"
    if [ -n "$number" ]; then
      gh issue edit "$number" --title "$title"
      gh issue comment "$number" --body-file "$body"
    else
      gh label create "$label" --description "The nightly run on GPUs" --force
      gh issue create --title "$title" --label "$label" --body-file "$body"
    fi
    ;;
  green)
    if [ -n "$number" ]; then
      gh issue close "$number" --comment "Green again: $2"
    fi
    ;;
  *)
    echo "nightly-issue.sh: the first argument is red or green, not '$state'" >&2
    exit 2
    ;;
esac
