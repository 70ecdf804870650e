from engine import App
from tests.proofs.isolation_box import Settings, component

app = App()
left = app.use(component, name="left", config=Settings("left"))
right = app.use(component, name="right", config=Settings("right"))
