from component_name import ComponentName, Settings, component
from headrace import App

app = App()
many = ComponentName(app.use(component, name="many"))
few = ComponentName(app.use(component, name="few", config=Settings(most=2)))
