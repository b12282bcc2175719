/** The `fd` link against the kernel's own sockets: a TUN device's descriptor handed in, with and without headers. */
import { addAddress, createNamespace } from "../support/netns.ts";
import { withTunFd } from "../support/tun-fd.ts";
import { describeLink } from "./kernel-suite.ts";

for (const vnetHeader of [false, true]) {
  describeLink({
    name: `fd ${vnetHeader ? "with" : "without"} virtio_net_hdr`,
    own: ["10.67.0.1", "fd67::1"],
    host: ["10.67.0.2", "fd67::2"],
    needs: { programs: ["python3"] },
    async join() {
      const near = await createNamespace();
      const options = { link: "fd", fd: 3, vnetHeader, address: "10.67.0.1/24, fd67::1/64" } as const;
      return {
        inside: near,
        near,
        options,
        prefix: withTunFd("handed0", vnetHeader),
        device: "handed0",
        async whenUp() {
          await addAddress(near, "handed0", "10.67.0.2/24");
          await addAddress(near, "handed0", "fd67::2/64");
          await near.ip("link", "set", "handed0", "up");
        },
      };
    },
  });
}
