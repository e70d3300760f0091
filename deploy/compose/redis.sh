# Starts Redis or Sentinel. A Redis asks the Sentinels who is master, so that one that comes back is a replica from
# its start; the first machine is master when none of them knows.
set -eu
first=$(sed -n 's/^sentinel monitor sandwich \([^ ]*\) .*/\1/p' /etc/sentinel.conf)
servers=$(sed -n 's/^# servers: //p' /etc/sentinel.conf)

if [ "$1" = sentinel ]; then
  # Sentinel writes what it learns into its file.
  if [ ! -s /data/sentinel.conf ]; then
    { cat /etc/sentinel.conf; echo "sentinel announce-ip $SANDWICH_ADDRESS"; } > /data/sentinel.conf.new
    mv /data/sentinel.conf.new /data/sentinel.conf
  fi
  exec redis-server /data/sentinel.conf --sentinel
fi

master=
REDISCLI_AUTH=$(sed -n 's/^requirepass //p' /etc/redis.conf)
export REDISCLI_AUTH
for server in $servers; do
  master=$(timeout 3 redis-cli -h "$server" -p 26379 --tls --cacert /tls/ca.crt --no-auth-warning \
    sentinel get-master-addr-by-name sandwich 2> /dev/null | head -n 1) || master=
  case $master in [0-9]*) break ;; *) master= ;; esac
done
: "${master:=$first}"
set -- --replica-announce-ip "$SANDWICH_ADDRESS"
[ "$master" = "$SANDWICH_ADDRESS" ] || set -- "$@" --replicaof "$master" 6379
exec redis-server /etc/redis.conf "$@"
