"""Colour: a look baked onto a terrain and a sky, and pixels shaded from them.

Everything that does not depend on the view (albedo, sun, shadows, ambient) is computed once a
flight in texture space; a frame only looks it up and adds water mirrors and fog. Textures are
averaged down for distant pixels, so far ground is smooth instead of shimmering.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.worlds.fields import Noise, blur, broad_blur, gradient, quantile, smoothstep
from longvie_cli.worlds.looks import LIGHTS, PALETTE_COLORS, Color, Light, Look, Palette
from longvie_cli.worlds.raycast import sample_texture, wrap_texture
from longvie_cli.worlds.seeding import scalar_stream, tensor_stream
from longvie_cli.worlds.terrain import Terrain

_SKY_WIDTH, _SKY_HEIGHT = 1024, 256
_SKY_LOWEST, _SKY_HIGHEST = -4.0, 64.0

# Fog density a unit, cloud cover in [0, 1], share of direct sun left, greying of light and sky.
_WEATHER = {
    "clear": (0.0016, 0.0, 1.0, 0.0),
    "cloudy": (0.0017, 0.5, 0.92, 0.0),
    "overcast": (0.0021, 1.0, 0.16, 0.75),
    "foggy": (0.0070, 0.0, 0.45, 0.45),
    "rainy": (0.0032, 1.0, 0.12, 0.8),
    "snowfall": (0.0042, 1.0, 0.2, 0.75),
}


class Painter:
    """Colours hit points and sky directions in one look.

    Args:
        terrain: What is painted.
        look: How.
        seed: Of the flight: the sun's direction, clouds and stars.
    """

    def __init__(self, terrain: Terrain, look: Look, seed: int) -> None:
        palette, light = PALETTE_COLORS[look.palette], LIGHTS[look.time_of_day]
        self._density, cover, sun_share, grey = _WEATHER[look.weather]
        azimuth = scalar_stream(seed, "sun").uniform(0.0, 2.0 * math.pi)
        self._palette, self._look = palette, look
        light = _under_weather(light, look, grey)
        sun = _direction(azimuth, light.sun_elevation)
        lit, water = _bake_ground(terrain, palette, light, sun, sun_share, look)
        texture = torch.cat((lit, water[None]))
        self._levels = [wrap_texture(texture)]
        for _ in range(2):
            texture = F.avg_pool2d(F.pad(texture[None], (1, 2, 1, 2), mode="circular"), 4, 2)[0]
            texture = F.avg_pool2d(F.pad(texture[None], (1, 2, 1, 2), mode="circular"), 4, 2)[0]
            self._levels.append(wrap_texture(texture))
        haze, sky = _bake_sky(light, azimuth, cover, look, tensor_stream(seed, "sky"))
        self._haze, self._sky = _wrap_sky(haze), _wrap_sky(sky)
        self._mirror = palette.water_mirror

    def ground(self, x: Tensor, z: Tensor, directions: Tensor, depth: Tensor) -> Tensor:
        """Returns colours [3, n] of hit points.

        Args:
            x: [n] world position, with `z`.
            z: [n] world position.
            directions: [n, 3] rays, 1 along the camera axis.
            depth: [n] z-depths.
        """
        fine, middle, coarse = (sample_texture(level, x, z) for level in self._levels)
        first, second = smoothstep(40.0, 170.0, depth), smoothstep(200.0, 600.0, depth)
        color = torch.lerp(torch.lerp(fine, middle, first), coarse, second)
        rgb, water = color[:3], color[3]
        length = directions.norm(dim=-1)
        rise = directions[:, 1] / length
        azimuth = torch.atan2(directions[:, 0], -directions[:, 2])
        elevation = torch.asin(rise)
        if self._mirror > 0.0:
            mirrored = _sample_sky(self._sky, azimuth, elevation.abs())
            fresnel = 0.12 + 0.75 * (1.0 - rise.abs()).clamp(min=0.0) ** 5
            rgb = torch.lerp(rgb, mirrored, water * fresnel * self._mirror)
        haze = _sample_sky(self._haze, azimuth, elevation)
        return torch.lerp(haze, rgb, torch.exp(-((depth * length * self._density) ** 1.4)))

    def sky(self, directions: Tensor) -> Tensor:
        """Returns colours [3, n] of rays [n, 3] that meet nothing."""
        length = directions.norm(dim=-1)
        azimuth = torch.atan2(directions[:, 0], -directions[:, 2])
        return _sample_sky(self._sky, azimuth, torch.asin(directions[:, 1] / length))


def _rgb(color: Color) -> Tensor:
    return torch.tensor(color)[:, None, None]


def _mix(first: Color, second: Color, share: float) -> Color:
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def _direction(azimuth: float, elevation_degrees: float) -> tuple[float, float, float]:
    elevation = math.radians(elevation_degrees)
    across = math.cos(elevation)
    return across * math.sin(azimuth), math.sin(elevation), -across * math.cos(azimuth)


def _under_weather(light: Light, look: Look, grey: float) -> Light:
    """Greys a light for the weather, keeping the hue of its time of day recognisable."""
    if grey == 0.0:
        return light
    bright = {"dawn": 0.74, "noon": 0.82, "sunset": 0.62, "night": 0.26}[look.time_of_day]
    tint = {
        "overcast": (0.94, 0.96, 1.0),
        "foggy": (1.0, 1.0, 1.0),
        "rainy": (0.38, 0.46, 0.56),
        "snowfall": (1.08, 1.10, 1.14),
    }[look.weather]
    veil = (bright * tint[0], bright * tint[1], bright * tint[2])
    if look.time_of_day == "night":
        veil = (veil[0] * 0.55, veil[1] * 0.8, veil[2] * 1.35)
    # The horizon keeps more of its own colour than the zenith: that is where a sunset shows.
    ambient_gain = {"overcast": 1.5, "foggy": 1.5, "rainy": 1.05, "snowfall": 1.6}[look.weather]
    ambient = _mix(light.ambient, (veil[0] * 0.6, veil[1] * 0.6, veil[2] * 0.6), 0.5)
    return dataclasses.replace(
        light,
        zenith=_mix(light.zenith, veil, grey),
        horizon=_mix(light.horizon, veil, grey * 0.68),
        glow=_mix(light.glow, veil, grey * 0.8),
        ambient=(ambient[0] * ambient_gain, ambient[1] * ambient_gain, ambient[2] * ambient_gain),
        cloud=_mix(light.cloud, veil, grey),
        cloud_shade=_mix(light.cloud_shade, (veil[0] * 0.8, veil[1] * 0.8, veil[2] * 0.84), grey),
        stars=light.stars * (1.0 - grey),
    )


def _bake_ground(
    terrain: Terrain,
    palette: Palette,
    light: Light,
    sun: tuple[float, float, float],
    sun_share: float,
    look: Look,
) -> tuple[Tensor, Tensor]:
    """Returns lit colour [3, PERIOD, PERIOD] and water mask [PERIOD, PERIOD]."""
    ground, grain = terrain.ground, terrain.grain
    floor = max(terrain.water_level, quantile(ground, 0.01))
    span = quantile(ground, 0.995) - floor
    level = (ground - floor) / span + 0.07 * grain
    slope_z, slope_x = gradient(ground)
    steep = (slope_z**2 + slope_x**2).sqrt()
    color = torch.lerp(_rgb(palette.low), _rgb(palette.middle), smoothstep(0.08, 0.5, level))
    color = torch.lerp(color, _rgb(palette.high), smoothstep(0.5, 0.85, level))
    color = torch.lerp(color, _rgb(palette.cliff), smoothstep(0.65, 1.3, steep + 0.12 * grain))
    color = color * (1.0 + 0.09 * grain.clamp(-2.0, 2.0))
    if look.weather == "snowfall":
        settled = 0.35 * (1.0 - smoothstep(0.5, 1.1, steep))
        color = torch.lerp(color, _rgb((0.95, 0.97, 1.0)), settled)

    tint = terrain.object_tint
    if terrain.has_trees:
        dressed = torch.lerp(_rgb(palette.object_first), _rgb(palette.object_second), tint)
    else:
        dressed = _rgb(palette.rock) * (0.8 + 0.4 * tint)
    tall = (terrain.surface - ground).clamp(min=0.0)
    color = torch.lerp(color, dressed * (0.68 + 0.04 * tall).clamp(max=1.12), terrain.object_mask)

    surface_z, surface_x = gradient(terrain.surface)
    length = (1.0 + surface_z**2 + surface_x**2).sqrt()
    # Half-Lambert: slopes facing away from a low sun stay readable, not black.
    facing = (-surface_x * sun[0] + sun[1] - surface_z * sun[2]) / length
    direct = (0.25 + 0.75 * facing).clamp(min=0.0) ** 1.3 / max(0.45, sun[1] + 0.25) * 0.95
    direct = direct * _sunlit(terrain.surface, sun)
    hollow = terrain.surface - broad_blur(terrain.surface)
    sky_view = (0.62 + 0.38 / length) * (0.86 + 0.010 * hollow).clamp(0.6, 1.15)
    lit = color * (_rgb(light.sun) * direct * sun_share + _rgb(light.ambient) * sky_view * 1.15)

    water = torch.zeros_like(ground)
    if math.isfinite(terrain.water_level):
        sunk = terrain.water_level - ground
        water = smoothstep(-0.15, 0.5, sunk) * (1.0 - terrain.object_mask)
        shore = smoothstep(-2.2, 0.0, sunk) * (1.0 - terrain.object_mask)
        brightness = _rgb(light.sun) * (0.85 * sun_share) + _rgb(light.ambient) * 1.1
        lit = torch.lerp(lit, _rgb(palette.shore) * brightness * 0.95, shore * 0.8)
        shade = 1.0 - 0.35 * smoothstep(0.0, 14.0, sunk) + 0.04 * grain
        pool = (
            _rgb(palette.water)
            * shade
            * (brightness * (1.0 - palette.water_glow) + palette.water_glow)
        )
        lit = torch.lerp(lit, pool, water)
        if palette.water_glow > 0.0:
            near = torch.exp(-(ground - terrain.water_level).clamp(min=0.0) / 6.0) * (1.0 - water)
            lit = lit + 0.3 * palette.water_glow * near * _rgb(palette.water)
    if look.palette == "volcanic":
        # Glowing cracks tell volcanic ground from any dark ground, at night too.
        crack = torch.exp(-((grain / 0.14) ** 2)) * (1.0 - terrain.object_mask) * (1.0 - water)
        crack = crack * (1.0 - smoothstep(0.5, 1.0, steep))
        lit = lit + blur(crack, 1) * _rgb((1.0, 0.30, 0.03)) * 0.75
    return _shoulder(lit), water


def _shoulder(color: Tensor) -> Tensor:
    """Leaves colours below 0.75 alone and rolls brighter ones off towards 1."""
    over = (color - 0.75).clamp(min=0.0)
    return color.clamp(0.0, 0.75) + 0.25 * over / (over + 0.25)


def _sunlit(surface: Tensor, sun: tuple[float, float, float]) -> Tensor:
    """Soft shadows: how far every texel stands out of the shade cast along the sun's azimuth."""
    across = math.hypot(sun[0], sun[2])
    step_x, step_z, drop = sun[0] / across, sun[2] / across, sun[1] / across
    shade = surface.roll((-round(2 * step_z), -round(2 * step_x)), (0, 1)) - 2 * drop
    reach = 2
    # Doubling: the shade of 2n texels is that of n texels and the same again n texels further.
    while reach < 256:
        moved = shade.roll((-round(reach * step_z), -round(reach * step_x)), (0, 1))
        shade = torch.maximum(shade, moved - reach * drop)
        reach *= 2
    return 1.0 - 0.75 * smoothstep(-0.5, 3.0, shade - surface)


def _bake_sky(
    light: Light, sun_azimuth: float, cover: float, look: Look, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns haze and full sky, [3, _SKY_HEIGHT, _SKY_WIDTH]; rows rise, columns turn right."""
    degrees = torch.linspace(_SKY_LOWEST, _SKY_HIGHEST, _SKY_HEIGHT)[:, None]
    elevation = torch.deg2rad(degrees)
    azimuth = torch.arange(_SKY_WIDTH)[None, :] * (2.0 * math.pi / _SKY_WIDTH)
    sun_height = math.radians(light.sun_elevation)
    toward = torch.sin(elevation) * math.sin(sun_height) + torch.cos(elevation) * math.cos(
        sun_height
    ) * torch.cos(azimuth - sun_azimuth)
    angle = torch.rad2deg(torch.acos(toward.clamp(-1.0, 1.0)))
    height = torch.sin(elevation.clamp(min=0.0))
    haze = torch.lerp(_rgb(light.zenith), _rgb(light.horizon), torch.exp(-height * 4.2)[None])
    clear_share = {"clear": 1.0, "cloudy": 1.0, "foggy": 0.35}.get(look.weather, 0.12)
    glow = torch.exp(-((angle / 26.0) ** 1.2)) * 0.75 * clear_share
    haze = torch.lerp(haze, _rgb(light.glow).expand_as(haze), glow[None])
    sky = haze
    if light.stars > 0.0:
        sky = sky + light.stars * _stars(generator) * smoothstep(2.0, 14.0, degrees)
    disc = (1.0 - smoothstep(light.disc_radius - 0.5, light.disc_radius + 0.5, angle)) * clear_share
    if look.weather in ("clear", "cloudy", "foggy"):
        sky = torch.lerp(sky, _rgb(light.disc).expand_as(sky), disc[None])
    if cover > 0.0:
        # The cloud layer is flat, so it crowds together towards the horizon.
        distance = 300.0 / (height + 0.34)
        x, z = distance * torch.sin(azimuth), distance * torch.cos(azimuth)
        noise = Noise(generator)
        layers = (noise.fractal(260.0, 50.0, 1.6), noise.fractal(200.0, 80.0, 1.2))
        layer = wrap_texture(torch.stack(layers))
        billow, shading = sample_texture(layer, x.flatten(), z.flatten()).view(2, *angle.shape)
        shine = torch.sigmoid(1.4 * shading - 0.9 * billow + 0.9)
        bright = torch.lerp(_rgb(light.cloud_shade), _rgb(light.cloud), shine)
        amount = smoothstep(0.15, 1.2, billow) if cover < 1.0 else 0.5 + 0.22 * billow
        amount = amount * smoothstep(2.0, 14.0, degrees)
        sky = torch.lerp(sky, bright, amount.clamp(0.0, 0.95)[None])
    return _shoulder(haze), _shoulder(sky)


def _stars(generator: torch.Generator) -> Tensor:
    """A sprinkle of soft dots, a pixel or two wide in a small video."""
    count = 420
    draws = torch.rand(3, count, generator=generator)
    field = torch.zeros(_SKY_HEIGHT, _SKY_WIDTH)
    rows, columns = (draws[0] * _SKY_HEIGHT).long(), (draws[1] * _SKY_WIDTH).long()
    for row_shift in range(-2, 3):
        for column_shift in range(-2, 3):
            fall = math.exp(-(row_shift**2 + column_shift**2) / 1.6)
            row = (rows + row_shift).clamp(0, _SKY_HEIGHT - 1)
            column = (columns + column_shift) % _SKY_WIDTH
            field.index_put_((row, column), (0.35 + 0.65 * draws[2]) * fall, accumulate=True)
    return field.clamp(max=1.0)


def _wrap_sky(sky: Tensor) -> Tensor:
    return F.pad(sky[None], (0, 1, 0, 0), mode="circular").contiguous()


def _sample_sky(sky: Tensor, azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Bilinear samples [3, n] at angles in radians; elevations beyond the texture use its edge."""
    turn = azimuth * (0.5 / math.pi)
    turn = (turn - turn.floor()) * 2.0 - 1.0
    low, high = math.radians(_SKY_LOWEST), math.radians(_SKY_HIGHEST)
    rise = (elevation - low) * (2.0 / (high - low)) - 1.0
    grid = torch.stack((turn, rise), dim=-1)[None, None]
    return F.grid_sample(sky, grid, mode="bilinear", padding_mode="border", align_corners=True)[
        0, :, 0
    ]
