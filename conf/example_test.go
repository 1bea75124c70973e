package conf_test

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"wireguard4netns/conf"
)

const file = `[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
Address = 10.2.0.2
DNS = 10.2.0.1, corp.example

[Peer]
# friendly_name = Geneva
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
`

func ExampleParse() {
	c, warnings, err := conf.Parse(strings.NewReader(file), "wg0.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range warnings {
		fmt.Println(w)
	}
	fmt.Println(c.Interface.PrivateKey, c.Interface.Addresses, c.Interface.DNS, c.Interface.Search)
	for _, p := range c.Peers {
		fmt.Println(p.Name, p.PublicKey, p.AllowedIPs, p.Endpoint, p.PersistentKeepalive)
	}
	// Output:
	// (hidden) [10.2.0.2/32] [10.2.0.1] [corp.example]
	// Geneva xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= [0.0.0.0/0] vpn.example.com:51820 25s
}

func ExampleError() {
	_, _, err := conf.Parse(strings.NewReader("[Interface]\nAdress = 10.2.0.2\n"), "wg0.conf")
	fmt.Println(err)
	if wrong, ok := errors.AsType[*conf.Error](err); ok {
		fmt.Println(wrong.What())
		fmt.Println("hint:", wrong.Hint)
	}
	// Output:
	// wg0.conf:2: unknown key "Adress" in [Interface]: did you mean "Address"?
	// wg0.conf:2: unknown key "Adress" in [Interface]
	// hint: did you mean "Address"?
}

func ExampleConfig_WriteTo() {
	c, _, err := conf.Parse(strings.NewReader(file), "wg0.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Interface.MTU = 1380
	c.Peers[0].Endpoint, _ = conf.ParseEndpoint("[2001:db8::1]:51820")
	c.WriteTo(os.Stdout)
	// Output:
	// [Interface]
	// PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
	// Address = 10.2.0.2/32
	// DNS = 10.2.0.1, corp.example
	// MTU = 1380
	//
	// [Peer]
	// # friendly_name = Geneva
	// PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
	// AllowedIPs = 0.0.0.0/0
	// Endpoint = [2001:db8::1]:51820
	// PersistentKeepalive = 25
}

func ExamplePrivateKey() {
	k, _ := conf.ParsePrivateKey("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=")
	fmt.Printf("%v %x %#v\n", k, k, k)
	fmt.Println(k.PublicKey())
	fmt.Println(k.Base64())
	// Output:
	// (hidden) (hidden) (hidden)
	// HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
	// yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
}

func ExampleInterfaceName() {
	fmt.Println(conf.InterfaceName("/etc/wireguard/wg0.conf"))
	_, err := conf.InterfaceName("my vpn.conf")
	fmt.Println(err)
	// Output:
	// wg0 <nil>
	// my vpn.conf: "my vpn" cannot name an interface: a name is 1 to 15 of the characters a-z A-Z 0-9 _ = + . -; rename the file or give another interface name
}
