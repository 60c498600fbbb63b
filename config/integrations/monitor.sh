#!/bin/sh
# A pipeline step that fails the job when a release is bad: monitor.sh NEW_SLOT [SECONDS]
#
# Moves nothing: it tells flipback that the traffic was moved, waits for the verdict, and ends with its exit code:
# 0 passed, 1 rolled back or withheld, 3 no verdict, 4 superseded or cancelled, 75 flipback is away, 124 timeout.
#
#   FLIPBACK_SERVICE   the service (default: checkout)
#   VERSION            what runs in the new slot
#   SLOTS              both slots (default: "blue green")
set -eu

new=${1:?usage: monitor.sh NEW_SLOT [SECONDS]}
seconds=${2:-900}
old=
for slot in ${SLOTS:-blue green}; do
    [ "$slot" = "$new" ] || old=$slot
done

# A soak that could not tell goes on for its own length once more: so long is waited at most.
exec flipback announce "${FLIPBACK_SERVICE:-checkout}" --old "$old" --new "$new" \
    ${VERSION:+--version "$VERSION"} --wait --timeout "$((seconds * 2))s"
