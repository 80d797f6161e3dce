"""From a configuration to a game ready to be played."""

from gandist.assembly.rules import class_cdf as class_cdf
from gandist.assembly.rules import generator_regularizers_of as generator_regularizers_of
from gandist.assembly.rules import regularizers_of as regularizers_of
from gandist.assembly.seats import build_networks as build_networks
from gandist.assembly.seats import open_accelerator as open_accelerator
from gandist.assembly.seats import remarks as remarks
from gandist.assembly.seats import seat_players as seat_players
from gandist.assembly.seats import synchronises as synchronises
