#!/bin/sh
# Process 1 of the guest: brings the machine up, then runs what arrives on the port named "agent", one script a line
# (`ID BASE64`), and answers with `ID STATUS OUT ERR` and that many bytes of standard output and standard error.
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin LD_LIBRARY_PATH=/lib HOME=/root
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t debugfs none /sys/kernel/debug
mkdir -p /dev/shm && mount -t tmpfs none /dev/shm
for module in $(cat /etc/modules); do insmod "$module" || echo "attndrive: $module can not be loaded"; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
mkdir -p /etc/nvme
echo nqn.2014-08.org.nvmexpress:uuid:6e1c4b1a-0000-4000-8000-00000000c0de >/etc/nvme/hostnqn
echo 6e1c4b1a-0000-4000-8000-00000000c0de >/etc/nvme/hostid

for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat "$name")" = agent ] && port=/dev/$(basename "$(dirname "$name")")
done
exec 3<>"$port"
echo ready >&3
while read -r id script <&3; do
  echo "$script" | base64 -d >/tmp/script
  sh /tmp/script >/tmp/stdout 2>/tmp/stderr </dev/null
  status=$?
  echo "$id $status $(wc -c </tmp/stdout) $(wc -c </tmp/stderr)" >&3
  cat /tmp/stdout /tmp/stderr >&3
done
poweroff -f
