#!/usr/bin/env bash
# Write a summary under the open pull request of a branch: one comment, updated by later runs.
#
#   post.sh FILE
#
# Which pull request it is comes from the event (HEAD is OWNER:BRANCH, SHA its commit), never from FILE, which a fork
# may have written: its text mentions nobody, and what a newer commit has made old is not posted. Needs gh, GH_TOKEN
# with `pull-requests: write`, GH_REPO and LINK.
set -euo pipefail

mark="<!-- sp-harness -->"
number="$(gh api --method GET "repos/$GH_REPO/pulls" -f state=open -f head="$HEAD" \
  --jq "map(select(.head.sha == \"$SHA\")) | .[0].number // empty")"
if [ -z "$number" ]; then
  echo "no open pull request of $HEAD is at $SHA; nothing is posted"
  exit 0
fi

body="$(mktemp)"
{
  echo "$mark"
  head -c 60000 "$1" | sed 's/@/\&#64;/g'
  printf '\n\n[Report](%s)\n' "$LINK"
} > "$body"

comment="$(gh api --paginate "repos/$GH_REPO/issues/$number/comments" \
  --jq "map(select(.user.type == \"Bot\" and (.body | startswith(\"$mark\")))) | .[0].id // empty" | head -n 1)"
if [ -n "$comment" ]; then
  gh api --method PATCH "repos/$GH_REPO/issues/comments/$comment" -F body=@"$body" --silent
else
  gh api --method POST "repos/$GH_REPO/issues/$number/comments" -F body=@"$body" --silent
fi
