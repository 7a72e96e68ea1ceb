"""The command line: `autotune probe | plan | explore | explain | estimate | profiles`."""
