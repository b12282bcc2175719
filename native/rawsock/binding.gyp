# The addon `rawsock`: every C++ file of this folder and of those in it is compiled, so a new one needs no edit here.
# Not so test/ and fuzz/: they hold programs of their own (scripts/lib/native-compile.js builds those).
{
  "targets": [
    {
      "target_name": "rawsock",
      "sources": ["<!@(find . -name '*.cc' -not -path './build/*' -not -path './test/*' -not -path './fuzz/*' | sort)"],
      "include_dirs": [".", "<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
      "cflags": ["-Wall", "-Wextra", "-Werror", "-pthread", "-fvisibility=hidden"],
      "cflags!": ["-fno-omit-frame-pointer"],
      "cflags_cc": ["-std=c++20", "-fno-exceptions", "-fno-rtti", "-O3"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-std=c++17"],
      "ldflags": ["-pthread"]
    }
  ]
}
