/**
 * A TUN device's descriptor handed to a program: for tests of the `fd` link.
 *
 * Node cannot make one; Python's standard library can.
 */
import type { Command } from "../../bench/lib/children.ts";

const script = `
import fcntl, os, struct, sys
device, flags = sys.argv[1], int(sys.argv[2])
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", device.encode(), flags)) # TUNSETIFF
os.dup2(tun, 3)
os.set_inheritable(3, True)
os.execvp(sys.argv[3], sys.argv[3:])
`;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

/** What a command is started by to find a TUN device of this name as descriptor 3. */
export function withTunFd(device: string, vnetHeader: boolean): Command {
  const flags = IFF_TUN | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0);
  return ["python3", "-c", script, device, String(flags)];
}
